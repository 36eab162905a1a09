"""The verb `choose RUN_DIR`: `main(words) -> exit code`. torch is imported after the words have been read."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pathscore.command.progress import threads
from pathscore.command.words import asked
from pathscore.config.options import FILLED, Check, between, option

USAGE = """usage: pathscore choose RUN_DIR [flags]

Measure the legal gradient estimators of a run at its present parameters, and say which one to use at each site: the
least variance × time, with an interval of what it gains against what the run uses.

"""
HOW = {"auto": None, "on": True, "off": False}
"""Words of --compile: as the run trains, or not."""
WORD = Check(f"must be {', '.join(HOW)}", lambda value: value in HOW)


@dataclasses.dataclass(frozen=True)
class ChooseRequest:
    """The measurement"""

    seconds: float = option(30.0, "about how long to measure", check=between(0.1, 1e6))
    biased: bool = option(False, "biased estimators are candidates too")
    compile: str = option("auto", "measure compiled steps: on, off, or auto, as the run trains", check=WORD)
    batch_size: int | None = option(None, "data points of a step", check=between(1, 10**7), none="as the run")
    seed: int = option(0, "seed of the draws", check=between(0, 2**63 - 1))
    json: str | None = option(None, "also write all figures to this file", check=FILLED)
    threads: int = option(1, "number of threads", check=between(1, 1024))
    debug: bool = option(False, "show tracebacks")


def main(words: Sequence[str]) -> int:
    """`pathscore choose RUN_DIR [flags]`."""
    given = asked(words, ChooseRequest, USAGE)
    if given is None:
        return 0
    request, places = given
    from pathscore.runs.choosing import batch_of, choose_job, last_line
    from pathscore.runs.opening import open_run
    from pathscore.runs.rundir import write_text

    compiled = HOW[request.compile]
    with threads(request.threads):
        run = open_run(places[0])
        found = choose_job(
            run.job,
            batch_of(run.job, request.batch_size),
            seconds=request.seconds,
            biased=request.biased,
            seed=request.seed,
            **({} if compiled is None else {"compiled": compiled}),
        )
    print("\n".join([found.table(), "", *found.notes(), "", last_line(found)]))
    if request.json is not None:
        write_text(Path(request.json), found.to_json())
        print(f"written: {request.json}")
    return 0
