"""Data sets: name -> tensors and their kind, from the table `DATASETS` or a user's own file.

    load_dataset(name, data_dir, download) -> Dataset
    load_file(path)                        -> Dataset
    check_values(dataset, likelihood, binarize)   refuses values that the likelihood has no density for

A set is one tensor x (N, X) of float32, pixels flat, their layout in `shape`; batches are index slices of it. What an
epoch makes of it, binarised and in order, is in `pathscore.data.epochs`. To add a set: one entry in `DATASETS`.
"""

import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pathscore.data import idx, omniglot
from pathscore.data.dataset import Dataset
from pathscore.data.epochs import BINARIZE, binarize, epoch_order
from pathscore.data.network import Unreachable
from pathscore.data.values import check_values, default_binarize, kind_of, refuse_not_finite
from pathscore.errors import DataError, unknown

__all__ = [
    "BINARIZE",
    "DATASETS",
    "DataError",
    "Dataset",
    "Source",
    "binarize",
    "check_values",
    "default_binarize",
    "epoch_order",
    "load_dataset",
    "load_file",
]


UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What `np.load` raises on damaged archives: found by flipping bits."""


@dataclass(frozen=True)
class Source:
    """An entry of `DATASETS`: how a named set is read. offline: it comes with the installation."""

    name: str
    doc: str
    kind: str
    offline: bool
    load: Callable[[Path, bool], Dataset]


def _unit_images(name: str, arrays: tuple[Tensor, Tensor, Tensor, Tensor]) -> Dataset:
    """Bytes (N, H, W) to the unit interval, flat."""
    x, labels, x_test, labels_test = arrays
    shape = (1, *x.shape[1:])
    return Dataset(name, "unit", x.flatten(1) / 255, x_test.flatten(1) / 255, labels, labels_test, shape)


def _digits(data_dir: Path, download: bool) -> Dataset:
    """1 500 and 297 rows in an order that is fixed for good: by writer, as published, the two would differ."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(pixels))  # the legacy generator, whose stream is frozen
    x = torch.from_numpy(pixels[order]).float() / 16
    y = torch.from_numpy(labels[order])
    return Dataset("digits", "unit", x[:1500], x[1500:], y[:1500], y[1500:], (1, 8, 8))


DATASETS: dict[str, Source] = {
    source.name: source
    for source in (
        Source("digits", "1 797 handwritten digits, 8×8, part of scikit-learn", "unit", True, _digits),
        Source(
            "mnist",
            "70 000 handwritten digits, 28×28",
            "unit",
            False,
            lambda data_dir, download: _unit_images("mnist", idx.read(idx.MNIST, data_dir, download)),
        ),
        Source(
            "fashion-mnist",
            "70 000 pictures of clothes, 28×28",
            "unit",
            False,
            lambda data_dir, download: _unit_images("fashion-mnist", idx.read(idx.FASHION_MNIST, data_dir, download)),
        ),
        Source(
            "omniglot",
            "32 460 handwritten characters of 50 alphabets, 28×28",
            "unit",
            False,
            lambda data_dir, download: _unit_images("omniglot", omniglot.read(data_dir, download)),
        ),
    )
}


def load_dataset(name: str, data_dir: str | Path | None = None, download: bool = True) -> Dataset:
    """The set `name` of `DATASETS`, from `data_dir` ("data" if not given, laid out by torchvision) or downloaded there.

    Raises `DataError` for a file that is damaged or cannot be read, or, within two seconds, for a set that is missing
    and cannot be downloaded; `UsageError` for an unknown name.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    try:
        return DATASETS[name].load(Path(data_dir or "data").expanduser().absolute(), download)
    except Unreachable as error:
        offline = ", ".join(source.name for source in DATASETS.values() if source.offline)
        raise DataError(
            f"--dataset {name}: {error}; point --data-dir at a folder that has it, or choose what works offline: "
            f"--dataset {offline}, or --data FILE.npz"
        ) from error
    except OSError as error:
        raise DataError(f"--dataset {name}: {error}: make --data-dir a folder that can be read") from error


def load_file(path: str | Path) -> Dataset:
    """A user's own data: an .npz archive with the array `x` and, if it is split already, `x_test`.

    Each is (N, X), (N, H, W) or (N, C, H, W), of bool, int or float. Without `x_test` every tenth row is held out, and
    with fewer than ten rows the test set is x itself. Integers other than 0 and 1 are refused: they are most often
    pixels from 0 to 255, and as they stand fit no likelihood.

    Raises `DataError`, naming the file and the remedy.
    """
    path = Path(path).expanduser()
    parts = {name: _pixels(f"{path}: {name}", array) for name, array in _read_npz(path).items()}
    x, x_test = parts["x"], parts.get("x_test")
    if x_test is None:
        held_out = torch.arange(len(x)) % 10 == 9
        x, x_test = (x[~held_out], x[held_out]) if held_out.any() else (x, x)
    if x.shape[1:] != x_test.shape[1:]:
        wrong = f"x has rows of shape {tuple(x.shape[1:])}, x_test of {tuple(x_test.shape[1:])}"
        raise DataError(f"{path}: {wrong}: give both the same shape")
    shape = (1, *x.shape[1:]) if x.dim() == 3 else tuple(x.shape[1:])
    x, x_test = x.flatten(1), x_test.flatten(1)
    return Dataset(str(path), kind_of(x, x_test), x, x_test, None, None, shape)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays x and, if there is one, x_test of an archive."""
    remedy = "write it with np.savez(file, x=…, x_test=…)"
    if not path.is_file():
        raise DataError(f"--data {path}: there is no such file")
    if not zipfile.is_zipfile(path):  # np.load would take a lone array, or a pickle, too
        raise DataError(f"{path} is no .npz archive, or a truncated one: {remedy}")
    try:
        # Opened here, because np.load leaves the file open when the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = archive.files
            arrays = {name: archive[name] for name in ("x", "x_test") if name in names}
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read ({error}): {remedy}") from error
    if "x" not in arrays:
        raise DataError(f"{path} has no array 'x', only {', '.join(names) or 'nothing'}: {remedy}")
    return arrays


def _pixels(where: str, array: np.ndarray) -> Tensor:
    """A finite float32 tensor of rank two to four, with at least one row."""
    if array.dtype.kind not in "buif":
        raise DataError(f"{where} holds {array.dtype}, not numbers: convert it to float32")
    if array.ndim not in (2, 3, 4):
        raise DataError(f"{where} has shape {array.shape}: give (N, X), (N, H, W) or (N, C, H, W)")
    if array.size == 0:
        raise DataError(f"{where} has shape {array.shape}, no values: give at least one row")
    if array.dtype.kind in "ui" and (array.min() < 0 or array.max() > 1):
        span = f"{array.min()} to {array.max()}"
        raise DataError(f"{where} holds integers from {span}: divide pixels by 255, or convert other values to float")
    with np.errstate(over="ignore"):  # too large for float32 becomes Inf, and is refused as such
        x = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    refuse_not_finite(where, x.flatten(1))
    return x
