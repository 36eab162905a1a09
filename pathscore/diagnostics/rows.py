"""Rows of the data in a program: the plate they lie in, the arguments for some of them, and the argument they are.

`row_plate(layout, args) -> (plate, N)`, `cut(args, rows) -> args`, `data_site(layout, args) -> Site`,
`with_data(layout, args, value) -> args`. A row is an element along the first dimension of the first argument; the data
may be any argument, as the labels of `model(X, y)`.
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
    """The observed site, whose values are one of the arguments in its own or another shape; UsageError otherwise."""
    data_index(layout, args)
    return layout.observed()


def data_index(layout: Layout, args: tuple) -> int:
    """Which argument the observed values are; UsageError where there is none."""
    site = layout.observed()
    values = layout.observed_values[site.name]
    for index, data in enumerate(args):
        if torch.is_tensor(data) and _equal(data, values):
            return index
    raise UsageError(
        f"this check feeds simulated {site.name!r} to the guide: pass the observed tensor to model and guide as an "
        "argument of its own"
    )


def _equal(data: torch.Tensor, values: torch.Tensor) -> bool:
    """Whether two tensors hold the same numbers in the same order, whatever their shapes and types."""
    return torch.equal(data.cpu().double().flatten(), values.cpu().double().flatten())


def with_data(layout: Layout, args: tuple, value: torch.Tensor) -> tuple:
    """The arguments with a simulated observation in place of the data, in their shape and type."""
    index = data_index(layout, args)
    data = args[index]
    return (*args[:index], value.reshape(data.shape).to(data), *args[index + 1 :])


def require_amortised(model: Callable, guide: Callable, layout: Layout, args: tuple, other: tuple) -> None:
    """UsageError for a guide that gives the same draws whatever the data: it can't be asked about other arguments."""
    index = data_index(layout, args)
    if not torch.equal(other[index], args[index]) and not depends_on(guide, model, layout, args, other):
        raise UsageError(
            "this check asks the guide about simulated data, but its draws don't depend on its arguments: its "
            "parameters are of these data alone"
        )
