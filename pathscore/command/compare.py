"""The verb `compare RUN_DIR RUN_DIR …`: `main(words) -> exit code`."""

import dataclasses
from collections.abc import Sequence

from pathscore.command.progress import progress_lines, threads
from pathscore.command.words import asked
from pathscore.config.options import FILLED, between, option

USAGE = """usage: pathscore compare RUN_DIR RUN_DIR … [flags]

Paired differences between runs on the same held-out data: writes comparison.html,
comparison.json, comparison.csv and comparison.tex.

"""


@dataclasses.dataclass(frozen=True)
class CompareRequest:
    """Amount of work"""

    points: int = option(1000, "held-out data points", check=between(2, 10**7))
    samples: int = option(1000, "importance samples for log p(x)", check=between(1, 10**7))
    out: str | None = option(None, "folder for comparison.html", check=FILLED, none="beside the first run")
    threads: int = option(1, "number of threads", check=between(1, 1024))
    quiet: bool = option(False, "print only the path of the page")
    debug: bool = option(False, "show tracebacks")


def main(words: Sequence[str]) -> int:
    """`pathscore compare RUN_DIR RUN_DIR … [flags]`."""
    given = asked(words, CompareRequest, USAGE, positional=len(words))
    if given is None:
        return 0
    request, directories = given
    from pathscore.reports import compare

    progress = progress_lines(request.quiet)
    with threads(request.threads):
        found = compare(directories, points=request.points, samples=request.samples, out=request.out, progress=progress)
    if not request.quiet:
        print(f"{found}\n")
    print(found.path)
    return 0
