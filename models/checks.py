"""What a layered model and its guide say of arguments that do not fit, in one line that names the remedy.

`require_rows(x, width, like)` looks at the data of a call; `sizes(name, value)` at the sizes of layers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pathscore.errors import UsageError


def require_rows(x: Any, width: int, like: Tensor) -> None:
    """Raise `UsageError` unless x is (B, width) and of the type of the parameters, `like`."""
    if not isinstance(x, Tensor):
        kind = type(x).__name__
        raise UsageError(f"x is a {kind}: pass a tensor of rows, torch.as_tensor(x, dtype={like.dtype})")
    if x.dtype != like.dtype:
        raise UsageError(f"x is {x.dtype} and the parameters are {like.dtype}: pass x.to({like.dtype})")
    if x.ndim < 2 or x.shape[-1] != width:
        raise UsageError(f"x has shape {tuple(x.shape)}, and the program takes rows (B, {width}): {_remedy(x, width)}")


def _remedy(x: Tensor, width: int) -> str:
    if x.ndim == 1 and len(x) == width:
        return "pass x[None] for one row"
    if x.ndim > 2 and x.shape[1:].numel() == width:
        return "pass x.flatten(1)"
    return f"make it with data_size={x.shape[1:].numel()}" if x.ndim > 1 else "pass a tensor with two axes"


def size_of(name: str, value: Any) -> int:
    """One size. Raises `UsageError` for anything but a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name} takes a whole number of at least 1, got {value!r}")
    return value


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """The sizes of layers as a tuple; one size may be given alone. Raises `UsageError` for anything else."""
    found = (value,) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(found, str) or not isinstance(found, Sequence | torch.Size):
        raise UsageError(f"{name} takes sizes of layers, as in {name}=(16,), got {value!r}")
    if not all(isinstance(size, int) and not isinstance(size, bool) for size in found):
        raise UsageError(f"{name} takes whole numbers, as in {name}=(16,), got {value!r}")
    return tuple(found)
