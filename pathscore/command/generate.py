"""The verb `generate RUN_DIR`: `main(words) -> exit code`. torch is imported after the words have been read."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pathscore.command.progress import threads
from pathscore.command.words import asked
from pathscore.config.options import FILLED, between, option

USAGE = """usage: pathscore generate RUN_DIR [flags]

Draw new data from the model of a run, and write them as an array for each observed site.

"""


@dataclasses.dataclass(frozen=True)
class GenerateRequest:
    """How many, and where"""

    count: int = option(100, "data points", check=between(1, 10**9))
    mean: bool = option(False, "E[x | z] at draws z of the prior, instead of draws of x")
    out: str | None = option(None, "FILE.npz, .parquet or .csv", check=FILLED, none="RUN_DIR/generated.npz")
    seed: int = option(0, "seed of all draws", check=between(0, 2**63 - 1))
    threads: int = option(1, "number of threads", check=between(1, 1024))
    debug: bool = option(False, "show tracebacks")


def main(words: Sequence[str]) -> int:
    """`pathscore generate RUN_DIR [flags]`."""
    given = asked(words, GenerateRequest, USAGE)
    if given is None:
        return 0
    request, places = given
    target = Path(request.out) if request.out else Path(places[0]) / "generated.npz"
    from pathscore.runs.opening import open_run
    from pathscore.runs.rundir import write_bytes
    from pathscore.trained.files import as_bytes, writer_of

    writer_of(target)  # before the work
    with threads(request.threads):
        found = open_run(places[0]).generate(request.count, mean=request.mean, seed=request.seed)
    write_bytes(target, as_bytes(target, found if isinstance(found, dict) else {"x": found}))
    print(target)
    return 0
