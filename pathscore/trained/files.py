"""Arrays by name as the bytes of a file: `as_bytes(path, arrays)`, by the ending of the path.

`.npz` keeps shapes. `.parquet` and `.csv` are tables with a row for each data point: an array (N, D) takes the columns
"name.0" … "name.D−1", and one with more axes "name.0.0" and so on.
"""

import io
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pathscore.errors import UsageError
from pathscore.machine.extras import brought

Arrays = Mapping[str, np.ndarray]


def table_of(arrays: Arrays) -> Any:
    """A pandas DataFrame with the arrays' values as columns."""
    import pandas

    columns = {}
    for name, array in arrays.items():
        for index in itertools.product(*map(range, array.shape[1:])):
            columns[".".join([name, *map(str, index)])] = array[(slice(None), *index)]
    return pandas.DataFrame(columns)


def _npz(arrays: Arrays, file: Any) -> None:
    named: dict[str, Any] = dict(arrays)
    np.savez(file, **named)


def _parquet(arrays: Arrays, file: Any) -> None:
    brought("pyarrow", "parquet", "writing .parquet")  # pandas would answer with a list of engines
    table_of(arrays).to_parquet(file, index=False)


def _csv(arrays: Arrays, file: Any) -> None:
    table_of(arrays).to_csv(file, index=False)


WRITERS: dict[str, Callable[[Arrays, Any], None]] = {".npz": _npz, ".parquet": _parquet, ".csv": _csv}
"""Ending → a function that writes arrays into an open file."""


def writer_of(path: Path) -> Callable[[Arrays, Any], None]:
    """The writer for a path. Raises UsageError for another ending."""
    if path.suffix not in WRITERS:
        raise UsageError(f"{path}: the ending {path.suffix!r} is none of {', '.join(WRITERS)}: choose one of them")
    return WRITERS[path.suffix]


def as_bytes(path: Path, arrays: Arrays) -> bytes:
    """What the file at a path holds."""
    file = io.BytesIO()
    writer_of(path)(arrays, file)
    return file.getvalue()
