"""Rows of the data in a program: the plate they lie in, the arguments for some of them, and the argument they are.

`row_plate(layout, args) -> (plate, N)`, `cut(args, rows) -> args`, `data_places(layout, args) -> {site:
place}`, `with_data(layout, args, {site: value}) -> args`. A row is an element along the first dimension of the first
argument; the data may be any arguments, as the labels of `model(X, y)`, or slices of one, as the steps of a sequence.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from pathscore.diagnostics.layout import Layout
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


@dataclass(frozen=True)
class Place:
    """Where the values of an observed site stand: the argument `index`, or its slice `at` along `dim`."""

    index: int
    dim: int | None = None
    at: int = 0

    def read(self, args: tuple) -> torch.Tensor:
        """The values; a view of the argument."""
        data = args[self.index]
        return data if self.dim is None else data.select(self.dim, self.at)


def data_places(layout: Layout, args: tuple) -> dict[str, Place]:
    """Observed site → its place among the arguments, each place taken once where sites have equal values.

    The values may have another shape. Sites of a sequence are slices of an argument: x[t] or x[:, t].

    Raises UsageError where the model has no observed site, and where one is not in the arguments.
    """
    if not layout.of("observed"):
        raise UsageError("this check needs an observed site, and the model has none")
    found: dict[str, Place] = {}
    for site in layout.of("observed"):
        values = layout.observed_values[site.name]
        fitting = [p for p in _candidates(args, values.numel()) if _equal(p.read(args), values)]
        if not fitting:
            raise UsageError(
                f"this check feeds simulated {site.name!r} to the guide: pass the observed tensor to model and guide "
                "as an argument of its own"
            )
        taken = set(found.values())
        found[site.name] = next((place for place in fitting if place not in taken), fitting[0])
    return found


def _candidates(args: tuple, size: int) -> Iterator[Place]:
    """Whole arguments, then slices, of this number of values."""
    tensors = [(index, data) for index, data in enumerate(args) if torch.is_tensor(data)]
    yield from (Place(index) for index, data in tensors if data.numel() == size)
    for index, data in tensors:
        for dim, length in enumerate(data.shape):
            if length > 1 and data.numel() == size * length:
                yield from (Place(index, dim, at) for at in range(length))


def _equal(data: torch.Tensor, values: torch.Tensor) -> bool:
    """Whether two tensors hold the same numbers in the same order, whatever their shapes and types."""
    return torch.equal(data.cpu().double().flatten(), values.cpu().double().flatten())


def with_data(layout: Layout, args: tuple, values: Mapping[str, torch.Tensor]) -> tuple:
    """The arguments with simulated observations in place of the data, in their shape and type."""
    places = data_places(layout, args)
    used = {place.index for place in places.values()}
    new = tuple(data.clone() if index in used else data for index, data in enumerate(args))
    for name, place in places.items():
        room = place.read(new)
        room.copy_(values[name].reshape(room.shape))
    return new


def require_amortised(model: Callable, guide: Callable, layout: Layout, args: tuple, other: tuple) -> None:
    """UsageError for a guide that gives the same draws whatever the data: it can't be asked about other arguments."""
    changed = any(not torch.equal(place.read(other), place.read(args)) for place in data_places(layout, args).values())
    if changed and not depends_on(guide, model, layout, args, other):
        raise UsageError(
            "this check asks the guide about simulated data, but its draws don't depend on its arguments: its "
            "parameters are of these data alone"
        )
