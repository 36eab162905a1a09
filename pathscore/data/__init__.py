"""Data sets: name -> tensors and their kind, from the table `DATASETS` or a user's own file.

    load_dataset(name, data_dir, download) -> Dataset
    load_file(path, takes)                 -> Dataset
    refuse_other(dataset, takes, model)    raises an error where a set does not hold what a program takes
    check_values(dataset, likelihood, binarize)   raises an error for values that the likelihood has no density for

A set is a tensor x (N, X) of float32 with flat pixels, whose layout is `shape`, and labels where it has them. Batches
are index slices of these. `pathscore.data.epochs` binarises the data and orders the rows of an epoch. To add a set, add
an entry to `DATASETS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pathscore.data import idx, omniglot
from pathscore.data.dataset import NOTHING, Arguments, Dataset, refuse_other
from pathscore.data.epochs import BINARIZE, binarize, epoch_order
from pathscore.data.network import Unreachable
from pathscore.data.own import load_file
from pathscore.data.values import check_values, default_binarize
from pathscore.errors import DataError, unknown

__all__ = [
    "BINARIZE",
    "DATASETS",
    "NOTHING",
    "Arguments",
    "DataError",
    "Dataset",
    "Source",
    "binarize",
    "check_values",
    "default_binarize",
    "epoch_order",
    "load_dataset",
    "load_file",
    "refuse_other",
]


@dataclass(frozen=True)
class Source:
    """An entry of `DATASETS`: how a named set is read.

    kind: as `Dataset.kind`. offline: whether it is part of the installation. load: (folder, download) -> Dataset.
    holds: what it contains, as members of `pathscore.programs.entry.HOLDS`.
    """

    name: str
    doc: str
    kind: str
    offline: bool
    load: Callable[[Path, bool], Dataset]
    holds: tuple[str, ...] = ("rows", "labels")


def _unit_images(name: str, arrays: tuple[Tensor, Tensor, Tensor, Tensor]) -> Dataset:
    """Flat rows in the unit interval from bytes (N, H, W)."""
    x, labels, x_test, labels_test = arrays
    shape = (1, *x.shape[1:])
    return Dataset(name, "unit", x.flatten(1) / 255, x_test.flatten(1) / 255, labels, labels_test, shape)


def _digits(data_dir: Path, download: bool) -> Dataset:
    """1 500 and 297 rows in a fixed random order. The published order is by writer, so the two parts would differ."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(pixels))  # the legacy generator, whose stream is frozen
    x = torch.from_numpy(pixels[order]).float() / 16
    y = torch.from_numpy(labels[order])
    return Dataset("digits", "unit", x[:1500], x[1500:], y[:1500], y[1500:], (1, 8, 8))


def _breast_cancer(data_dir: Path, download: bool) -> Dataset:
    """448 and 121 rows in a fixed random order; columns have mean 0 and deviation 1 in training.

    The order is that of seed 1. With seed 0 a plain fit makes no error on the held-out rows, so they tell nothing.
    """
    from sklearn.datasets import load_breast_cancer

    columns, labels = load_breast_cancer(return_X_y=True)
    order = np.random.RandomState(1).permutation(len(columns))
    x, y = torch.from_numpy(columns[order]), torch.from_numpy(labels[order])
    x = ((x - x[:448].mean(0)) / x[:448].std(0, correction=0)).float()
    return Dataset("breast-cancer", "real", x[:448], x[448:], y[:448], y[448:], (30,))


DATASETS: dict[str, Source] = {
    source.name: source
    for source in (
        Source("digits", "1 797 handwritten digits, 8×8, part of scikit-learn", "unit", True, _digits),
        Source(
            "breast-cancer",
            "569 breast tumours, 30 measurements, malignant (0) or benign (1), part of scikit-learn",
            "real",
            True,
            _breast_cancer,
        ),
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
            f"--dataset {name}: {error}; point --data-dir at a folder that has it, or choose one that works offline: "
            f"--dataset {offline}, or --data FILE.npz"
        ) from error
    except OSError as error:
        raise DataError(f"--dataset {name}: {error}: give --data-dir a folder that can be read") from error
