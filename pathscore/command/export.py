"""The verb `export RUN_DIR`: `main(words) -> exit code`. torch is imported after the words have been read."""

import dataclasses
from collections.abc import Sequence

from pathscore.command.words import describe, read_words
from pathscore.config.options import FILLED, option
from pathscore.errors import UsageError

USAGE = """usage: pathscore export RUN_DIR [flags]

Write encoder.pt2 and decoder.pt2. They load where PyTorch is installed, without pathscore:
torch.export.load("decoder.pt2").module()(z)

"""


@dataclasses.dataclass(frozen=True)
class ExportRequest:
    """Where"""

    out: str | None = option(None, "folder of the files", check=FILLED, none="RUN_DIR")
    debug: bool = option(False, "show tracebacks")


def main(words: Sequence[str]) -> int:
    """`pathscore export RUN_DIR [flags]`."""
    if not words or "-h" in words or "--help" in words:
        print(f"{USAGE}{describe(ExportRequest)}")
        return 0
    request, places = read_words(words, ExportRequest, positional=1)
    if not places:
        raise UsageError("export needs a run directory: pathscore export RUN_DIR")
    from pathscore.runs.opening import open_run

    for path in open_run(places[0]).export(request.out or places[0]):
        print(path)
    return 0
