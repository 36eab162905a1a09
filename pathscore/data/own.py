"""A user's own data: `load_file(path, takes) -> Dataset`, from an .npz archive."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pathscore.data.dataset import Dataset
from pathscore.data.values import kind_of, refuse_not_finite
from pathscore.errors import DataError

NAMES = ("x", "x_test", "y", "y_test", "lengths", "lengths_test")
"""The arrays that are read; other arrays in the archive are ignored."""

UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""The errors that `np.load` raises on damaged archives, found by flipping bits."""


def load_file(path: str | Path, takes: Sequence[str] = ("rows",)) -> Dataset:
    """The arrays of an .npz archive: `x`, optionally `y` and `lengths`; and `x_test`, `y_test`, … if it is split.

    x: (N, X), (N, H, W) or (N, C, H, W), of bool, int or float; (N, T, X) with `lengths` (N,) for a program that takes
    sequences. y: (N,), whole numbers for classes, other numbers as float32. Without `x_test` every tenth row is held
    out; with fewer than ten rows the test set is x itself. Only a program that takes counts accepts integers other than
    0 and 1. For other programs they are an error: most often they are pixels from 0 to 255 that should be scaled.

    Raises `DataError`, which names the file and the remedy.
    """
    path = Path(path).expanduser()
    arrays = read_npz(path)
    tensors = {name: _tensor(f"{path}: {name}", array, takes) for name, array in arrays.items()}
    _refuse_unlike(path, tensors)
    if "x_test" not in tensors:
        tensors = _split(tensors)
    sequences = "sequences" in takes and "lengths" in tensors
    x, x_test = tensors["x"], tensors["x_test"]
    shape = (1, *x.shape[1:]) if x.dim() == 3 and not sequences else tuple(x.shape[1:])
    if not sequences:
        x, x_test = x.flatten(1), x_test.flatten(1)
    kind = kind_of(x.flatten(1), x_test.flatten(1), counts="counts" in takes)
    lengths = (tensors["lengths"], tensors["lengths_test"]) if sequences else (None, None)
    return Dataset(str(path), kind, x, x_test, tensors.get("y"), tensors.get("y_test"), shape, *lengths)


def _countable(array: np.ndarray, takes: Sequence[str]) -> bool:
    """Whether an array of integers can be used as it is: zeros and ones, or counts."""
    return array.min() >= 0 and (array.max() <= 1 or "counts" in takes)


def _split(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split every array into training rows and every tenth row, held out. With few rows both parts are all rows."""
    held_out = torch.arange(len(tensors["x"])) % 10 == 9
    if not held_out.any():
        return {**tensors, **{f"{name}_test": tensor for name, tensor in tensors.items()}}
    parts = {name: tensor[~held_out] for name, tensor in tensors.items()}
    return parts | {f"{name}_test": tensor[held_out] for name, tensor in tensors.items()}


def _refuse_unlike(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raise DataError where arrays that belong together differ in rows, or in the shape of a row."""
    x, x_test = tensors["x"], tensors.get("x_test")
    if x_test is not None and x.shape[1:] != x_test.shape[1:]:
        wrong = f"x has rows of shape {tuple(x.shape[1:])}, x_test of {tuple(x_test.shape[1:])}"
        raise DataError(f"{path}: {wrong}: give both the same shape")
    for name, tensor in tensors.items():
        stem, test = name.removesuffix("_test"), name.endswith("_test")
        of = "x_test" if test else "x"
        if stem != "x" and (of not in tensors or len(tensor) != len(tensors[of])):
            raise DataError(f"{path}: {name} has {len(tensor)} elements: give one for each row of {of}")
        if stem != "x" and "x_test" in tensors and f"{stem}_test" not in tensors:
            raise DataError(f"{path}: there are x_test and {stem}: give {stem}_test too")


def read_npz(path: Path, flag: str = "--data") -> dict[str, np.ndarray]:
    """The arrays of an archive that are in `NAMES`, with at least x. flag: what named the file, for errors."""
    remedy = "write it with np.savez(file, x=…, x_test=…)"
    if not path.is_file():
        raise DataError(f"{flag} {path}: there is no such file")
    if not zipfile.is_zipfile(path):  # np.load would take a lone array, or a pickle, too
        raise DataError(f"{path} is not an .npz archive, or it is truncated: {remedy}")
    try:
        # Opened here, because np.load leaves the file open when the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = archive.files
            arrays = {name: archive[name] for name in NAMES if name in names}
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read ({error}): {remedy}") from error
    if "x" not in arrays:
        raise DataError(f"{path} has no array 'x', only {', '.join(names) or 'nothing'}: {remedy}")
    return arrays


def _tensor(where: str, array: np.ndarray, takes: Sequence[str]) -> Tensor:
    """A finite tensor with at least one row: float32 of rank two to four for x, a vector for labels and lengths."""
    if array.dtype.kind not in "buif":
        raise DataError(f"{where} holds {array.dtype}, not numbers: convert it to float32")
    vector = not where.removesuffix("_test").endswith(": x")
    if vector and array.ndim != 1:
        raise DataError(f"{where} has shape {array.shape}: give one number for each row, (N,)")
    if not vector and array.ndim not in (2, 3, 4):
        raise DataError(f"{where} has shape {array.shape}: give (N, X), (N, H, W) or (N, C, H, W)")
    if array.size == 0:
        raise DataError(f"{where} has shape {array.shape}, no values: give at least one row")
    if vector and array.dtype.kind in "bui":
        return torch.from_numpy(np.ascontiguousarray(array, np.int64))
    if not vector and array.dtype.kind in "ui" and not _countable(array, takes):
        span = f"{array.min()} to {array.max()}"
        raise DataError(f"{where} holds integers from {span}: divide pixels by 255, or convert other values to float")
    with np.errstate(over="ignore"):  # too large for float32 becomes Inf, and is refused as such
        x = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    refuse_not_finite(where, x.flatten(1) if x.dim() > 1 else x[:, None])
    return x
