"""Check before training that the likelihood has a density for the data: `check_values(dataset, likelihood, binarize)`.

Pyro checks values too, but only with validation on (off under `python -O`), only at the first step, and without naming
the flag that would help. With validation off, a Bernoulli accepts grey pixels and reports a number that is not a bound.
"""

import math

import torch
from torch import Tensor

from pathscore.data.dataset import Dataset
from pathscore.data.epochs import BINARIZE
from pathscore.errors import DataError, unknown

BINARY_LIKELIHOODS = ("bernoulli",)
"""The likelihoods that have a density for zeros and ones only."""

CHUNK_ROWS = 4096
"""Rows that are checked together: at most a few temporary copies of 13 MB for 784 pixels."""


def default_binarize(kind: str, likelihood: str) -> str:
    """The default of --binarize: "static" for grey values with a likelihood of zeros and ones, otherwise "none"."""
    return "static" if kind == "unit" and likelihood in BINARY_LIKELIHOODS else "none"


def kind_of(*arrays: Tensor, counts: bool = False) -> str:
    """The kind of finite values: "binary" (all 0 or 1), "unit" (in [0, 1]), "count" (only if `counts`), or "real"."""
    if counts and not any(_first(x, _no_count) for x in arrays) and any(_first(x, _outside_unit) for x in arrays):
        return "count"
    if any(_first(x, _outside_unit) for x in arrays):
        return "real"
    return "unit" if any(_first(x, _grey) for x in arrays) else "binary"


def check_values(dataset: Dataset, likelihood: str, binarize: str) -> None:
    """Raise `DataError`, which names the array, the place and the remedy, unless the likelihood fits the data.

    An error for any likelihood: not two-dimensional, no rows or no columns, not float, different widths of x and
    x_test, a shape that does not hold the width, NaN, Inf. For a likelihood of zeros and ones, or with binarisation:
    values outside [0, 1]. For a likelihood of zeros and ones without binarisation: values other than 0 and 1.
    """
    if binarize not in BINARIZE:
        raise unknown("binarize", binarize, BINARIZE)
    for array, x in (("x", dataset.x), ("x_test", dataset.x_test)):
        where = f"{dataset.name}: {array}"
        _check_layout(where, x)
        refuse_not_finite(where, x)
        if binarize != "none" or likelihood in BINARY_LIKELIHOODS:
            reason = f"--binarize {binarize}" if binarize != "none" else f"--likelihood {likelihood}"
            _refuse(where, x, _outside_unit, f"{reason} needs values in [0, 1]: {_remedy(x)}")
        if binarize == "none" and likelihood in BINARY_LIKELIHOODS:
            remedy = "choose --binarize static, dynamic or threshold, or --likelihood normal"
            _refuse(where, x, _grey, f"--likelihood {likelihood} needs zeros and ones: {remedy}")
    _check_widths(dataset)


def refuse_not_finite(where: str, x: Tensor) -> None:
    """Raise `DataError`, which names the place, if x (N, X) has a NaN or an Inf."""
    _refuse(where, x, _not_finite, "remove or fill such rows")


def _check_layout(where: str, x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise DataError(f"{where} is {getattr(x, 'dtype', type(x).__name__)}, not float: convert it with x.float()")
    if x.dim() != 2:
        raise DataError(f"{where} has shape {tuple(x.shape)}, not (rows, values): flatten each data point")
    if 0 in x.shape:
        raise DataError(f"{where} is empty, {x.shape[0]} rows of {x.shape[1]} values: give at least one row")


def _check_widths(dataset: Dataset) -> None:
    width, width_test = dataset.x.shape[1], dataset.x_test.shape[1]
    if width != width_test:
        raise DataError(f"{dataset.name}: x has {width} values per row, x_test {width_test}: give both the same width")
    if math.prod(dataset.shape) != width:
        raise DataError(f"{dataset.name}: shape {dataset.shape} does not hold the {width} values of a row of x")


def _not_finite(x: Tensor) -> Tensor:
    return ~torch.isfinite(x)


def _outside_unit(x: Tensor) -> Tensor:
    return (x < 0) | (x > 1)


def _no_count(x: Tensor) -> Tensor:
    return (x < 0) | (x != x.round())


def _grey(x: Tensor) -> Tensor:
    return (x != 0) & (x != 1)


def _first(x: Tensor, bad) -> tuple[int, int, float] | None:
    """Row, column and value of the first bad value, or None."""
    for start, rows in zip(range(0, len(x), CHUNK_ROWS), x.split(CHUNK_ROWS), strict=True):
        found = bad(rows)
        if found.any():
            row, column = found.nonzero()[0].tolist()
            return start + row, column, rows[row, column].item()
    return None


def _refuse(where: str, x: Tensor, bad, remedy: str) -> None:
    found = _first(x, bad)
    if found:
        row, column, value = found
        raise DataError(f"{where} has the value {value:g} at row {row}, column {column}: {remedy}")


def _remedy(x: Tensor) -> str:
    """A remedy for values outside the unit interval, chosen by their range."""
    low, high = x.min().item(), x.max().item()
    if low >= 0 and high <= 255 and torch.equal(x, x.round()):
        return "they look like pixels from 0 to 255, divide them by 255"
    return f"they range from {low:g} to {high:g}, scale them or choose --likelihood normal with --binarize none"
