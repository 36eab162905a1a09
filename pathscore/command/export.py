"""The verb `export RUN_DIR`: `main(words) -> exit code`. torch is imported after the words have been read."""

import dataclasses
from collections.abc import Sequence

from pathscore.command.words import asked
from pathscore.config.options import FILLED, option

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
    given = asked(words, ExportRequest, USAGE)
    if given is None:
        return 0
    request, places = given
    from pathscore.runs.opening import open_run

    for path in open_run(places[0]).export(request.out or places[0]):
        print(path)
    return 0
