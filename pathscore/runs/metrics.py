"""The metrics of a run, one JSON object per line: `Metrics(path, lines)` appends, `read_metrics(path) -> list of dict`.

`train_elbo` is the mean over the `rows` of the epoch so far: differences of sums give the mean of any stretch, which is
what pictures draw (`diagnostics.curves.running`). `gradient_rms` is the root mean square of the gradient norms of all
steps since the line before that has one; `gradient_norm` is that of one step.

A line is flushed as soon as it is written. A process that is killed leaves at most one partial line, which is dropped.
A resumed run also drops the lines after its checkpoint, and writes them again.
"""

import json
import math
from pathlib import Path
from typing import Any

from pathscore.errors import RunDirError
from pathscore.runs.rundir import write_text


class Metrics:
    """The file `metrics.jsonl` of a run that has written `lines` lines. Without a path it writes nothing.

    Raises: RunDirError when the file cannot be written.
    """

    def __init__(self, path: Path | None, lines: int = 0):
        self.path, self.lines = path, lines
        if path is None:
            self._file = None
            return
        try:
            kept = read_metrics(path)[:lines] if lines else []
            write_text(path, "".join(_line(values) for values in kept))
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by `close`)
        except OSError as error:
            raise self._refused(error) from None

    def write(self, **values: Any) -> None:
        """Append one line; numbers that are not finite are written as null."""
        if self._file is None:
            return
        try:
            self._file.write(_line(values))
            self._file.flush()
            self.lines += 1
        except OSError as error:
            raise self._refused(error) from None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _refused(self, error: OSError) -> RunDirError:
        return RunDirError(f"cannot write {self.path}: {error.strerror or error}")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a metrics file; an empty list when there is no file."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            values = json.loads(text)
        except json.JSONDecodeError:
            continue
        if text.endswith("\n") and isinstance(values, dict):
            lines.append(values)
    return lines


def _line(values: dict[str, Any]) -> str:
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    return json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n"
