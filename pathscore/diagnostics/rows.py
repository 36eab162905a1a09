"""Rows of the data in a program: the plate they lie in, the arguments for some of them, and the argument they are.

`row_plate(layout, args) -> (plate, N)`, `cut(args, rows) -> args`, `data_sites(layout, args) -> [Site]`,
`with_data(layout, args, {site: value}) -> args`. A row is an element along the first dimension of the first argument;
the data may be any arguments, one for each observed site, as the labels of `model(X, y)`.
"""

from collections.abc import Callable, Mapping

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


def data_sites(layout: Layout, args: tuple) -> list[Site]:
    """The observed sites, each of which is one of the arguments; UsageError otherwise, and where there is none."""
    found = layout.of("observed")
    if not found:
        raise UsageError("this check needs an observed site, and the model has none")
    for site in found:
        data_index(layout, args, site.name)
    return found


def data_index(layout: Layout, args: tuple, name: str) -> int:
    """Which argument the values of an observed site are, in their own or another shape; UsageError for none of them."""
    values = layout.observed_values[name]
    for index, data in enumerate(args):
        if torch.is_tensor(data) and _equal(data, values):
            return index
    raise UsageError(
        f"this check feeds simulated {name!r} to the guide: pass the observed tensor to model and guide as an "
        "argument of its own"
    )


def _equal(data: torch.Tensor, values: torch.Tensor) -> bool:
    """Whether two tensors hold the same numbers in the same order, whatever their shapes and types."""
    return torch.equal(data.cpu().double().flatten(), values.cpu().double().flatten())


def with_data(layout: Layout, args: tuple, values: Mapping[str, torch.Tensor]) -> tuple:
    """The arguments with simulated observations in place of the data, in their shape and type."""
    new = list(args)
    for site in data_sites(layout, args):
        index = data_index(layout, args, site.name)
        new[index] = values[site.name].reshape(args[index].shape).to(args[index])
    return tuple(new)


def require_amortised(model: Callable, guide: Callable, layout: Layout, args: tuple, other: tuple) -> None:
    """UsageError for a guide that gives the same draws whatever the data: it can't be asked about other arguments."""
    indices = [data_index(layout, args, site.name) for site in data_sites(layout, args)]
    changed = any(not torch.equal(other[index], args[index]) for index in indices)
    if changed and not depends_on(guide, model, layout, args, other):
        raise UsageError(
            "this check asks the guide about simulated data, but its draws don't depend on its arguments: its "
            "parameters are of these data alone"
        )
