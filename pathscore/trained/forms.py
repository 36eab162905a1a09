"""The forms of arrays that people bring: numpy, torch, xarray. A result has the form of what it was computed from.

`tensor_of(x) -> Tensor` reads any of them; `FORMS[form_of(x)](tensor, dims)` gives a tensor back in that form.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pathscore.errors import UsageError, unknown

Dims = Sequence[str]


def _numpy(tensor: Tensor, dims: Dims) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _torch(tensor: Tensor, dims: Dims) -> Tensor:
    return tensor.detach()


def _xarray(tensor: Tensor, dims: Dims) -> Any:
    import xarray

    return xarray.DataArray(_numpy(tensor, dims), dims=list(dims))


FORMS: dict[str, Callable[[Tensor, Dims], Any]] = {"numpy": _numpy, "torch": _torch, "xarray": _xarray}
"""Form → a tensor and the names of its axes, in that form."""


def form_of(x: Any) -> str:
    """The form of an array, or of the first array of a tuple: "torch", "xarray", and "numpy" for everything else."""
    first = x[0] if isinstance(x, tuple) and x else x
    if isinstance(first, Tensor):
        return "torch"
    return "xarray" if type(first).__module__.startswith("xarray") else "numpy"


def chosen(form: str | None, x: Any) -> str:
    """The named form, or that of x where none is named. Raises UsageError for an unknown one."""
    if form is None:
        return form_of(x)
    if form not in FORMS:
        raise unknown("form", form, FORMS)
    return form


def tensor_of(x: Any, name: str = "x") -> Tensor:
    """A tensor from a tensor, an array, a DataFrame, a DataArray or nested lists.

    Raises: UsageError for what holds no numbers.
    """
    if isinstance(x, Tensor):
        return x.detach()
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise UsageError(f"{name} is no array ({error}): give rows of the same length") from None
    if array.dtype.kind not in "buif" or array.ndim == 0:
        what = f"an array of {array.dtype}" if array.ndim else f"a {type(x).__name__}"
        raise UsageError(f"{name} is {what}: give an array of numbers with one row for each data point")
    return torch.from_numpy(np.array(array))  # a copy, which may be written to


def in_form(values: Mapping[str, Tensor], dims: Mapping[str, Dims], form: str) -> Any:
    """Tensors by name in a form: an xarray.Dataset, or a dictionary of arrays."""
    found = {name: FORMS[form](tensor, dims[name]) for name, tensor in values.items()}
    if form != "xarray":
        return found
    import xarray

    return xarray.Dataset(found)
