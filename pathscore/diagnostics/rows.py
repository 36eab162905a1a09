"""Rows of the data in a program: the plate they lie in, the arguments for some of them, and the argument they are.

`row_plate(layout, args) -> (plate, N)`, `cut(args, rows) -> args`, `data_site(layout, args) -> Site`,
`as_argument(value, args) -> tensor`. A row is an element along the first dimension of the first argument.
"""

from collections.abc import Callable

import torch

from pathscore.diagnostics.layout import Layout, Site
from pathscore.diagnostics.programs import depends_on
from pathscore.errors import UsageError


def row_count(args: tuple) -> int:
    """Length of the first argument; 0 where it isn't a tensor with rows."""
    first = args[0] if args else None
    return len(first) if torch.is_tensor(first) and first.dim() else 0


def row_plate(layout: Layout, args: tuple) -> tuple[str | None, int]:
    """The plate around every site that is as long as the first argument, or None, and that length."""
    total = row_count(args)
    return next((name for name in layout.common if layout.plate_sizes[name] == total), None), total


def cut(args: tuple, rows: slice) -> tuple:
    """Some rows of every argument that is as long as the first one."""
    total = row_count(args)
    return tuple(a[rows] if torch.is_tensor(a) and a.dim() and len(a) == total else a for a in args)


def data_site(layout: Layout, args: tuple) -> Site:
    """The observed site, whose values are the first argument in its own or another shape; UsageError otherwise."""
    site = layout.observed()
    data, values = args[0] if args else None, layout.observed_values[site.name]
    if not (torch.is_tensor(data) and _equal(data, values)):
        raise UsageError(
            f"this check feeds simulated {site.name!r} to the guide: it must be the program's first argument"
        )
    return site


def _equal(data: torch.Tensor, values: torch.Tensor) -> bool:
    """Whether two tensors hold the same numbers in the same order, whatever their shapes and types."""
    return torch.equal(data.cpu().double().flatten(), values.cpu().double().flatten())


def as_argument(value: torch.Tensor, args: tuple) -> torch.Tensor:
    """A simulated observation in the shape and type of the first argument."""
    return value.reshape(args[0].shape).to(args[0])


def require_amortised(model: Callable, guide: Callable, layout: Layout, args: tuple, x: torch.Tensor) -> None:
    """UsageError for a guide that gives the same draws whatever the data: it can't be asked about x."""
    other = (x, *args[1:])
    if not torch.equal(x, args[0]) and not depends_on(guide, model, layout, args, other):
        raise UsageError(
            "this check asks the guide about simulated data, but its draws don't depend on its arguments: its "
            "parameters are of these data alone"
        )
