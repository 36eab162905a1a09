"""The verb `encode RUN_DIR FILE.npz`: `main(words) -> exit code`. torch is imported after the words have been read."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pathscore.command.progress import threads
from pathscore.command.words import asked
from pathscore.config.options import FILLED, between, option
from pathscore.errors import UsageError

USAGE = """usage: pathscore encode RUN_DIR FILE.npz [flags]

Write the guide's answer for the data points of a file, an array x (N, X), and y where the program takes labels. The
output holds an array for each site: z1.mean and z1.scale, or z1.probs. Grey values are binarised as the run had them.

"""


@dataclasses.dataclass(frozen=True)
class EncodeRequest:
    """The output"""

    out: str | None = option(None, "FILE.npz, .parquet or .csv", check=FILLED, none="FILE-codes.npz")
    draws: int = option(200, "draws of the guide, where a layer depends on another", check=between(1, 10**6))
    seed: int = option(0, "seed of these draws", check=between(0, 2**63 - 1))
    threads: int = option(1, "number of threads", check=between(1, 1024))
    debug: bool = option(False, "show tracebacks")


def main(words: Sequence[str]) -> int:
    """`pathscore encode RUN_DIR FILE.npz [flags]`."""
    given = asked(words, EncodeRequest, USAGE, positional=2)
    if given is None:
        return 0
    request, places = given
    if len(places) != 2:
        raise UsageError("encode needs a run directory and a file: pathscore encode RUN_DIR FILE.npz")
    source = Path(places[1])
    target = Path(request.out) if request.out else source.with_name(f"{source.stem}-codes.npz")
    from pathscore.runs.opening import open_run
    from pathscore.runs.rundir import write_bytes
    from pathscore.trained.files import as_bytes, writer_of

    writer_of(target)  # before the work
    with threads(request.threads):
        run = open_run(places[0])
        args = arguments(source, len(run.example))
        rows = (run.binarized(args[0]), *args[1:])
        codes = run.encode(rows, to="numpy", draws=request.draws, seed=request.seed)
    write_bytes(target, as_bytes(target, codes))
    print(target)
    return 0


def arguments(path: Path, count: int) -> tuple:
    """The arrays of a call from a file: x, and y or lengths for a program that takes two."""
    from pathscore.data.own import read_npz

    arrays = read_npz(path, "encode")
    found = tuple(arrays[name] for name in ("x", "y", "lengths") if name in arrays)
    if len(found) < count:
        raise UsageError(f"{path} holds {', '.join(arrays)}, and the program takes {count} arrays: add y")
    return found[:count]
