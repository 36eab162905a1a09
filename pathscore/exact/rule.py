"""A rule for one event element: `Rule(size, place)`, and helpers for the rules."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

Placed = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Rule:
    """`size` nodes per event element; `place(base, index)` → (value, log_weight, log_measure).

    exact: whether sums over the nodes are exact expectations of any function. Quadrature needs a smooth function.
    """

    size: int
    place: Callable[[torch.distributions.Distribution, torch.Tensor], Placed]
    exact: bool = False


def spread(value: torch.Tensor, base) -> torch.Tensor:
    """Broadcast a value (S, 1, …, *elements, *event) against the parameters of `base`."""
    batch = value.shape[: value.dim() - len(base.event_shape)]
    return value.expand(torch.broadcast_shapes(batch, base.batch_shape) + base.event_shape)


def weighted(base, value: torch.Tensor, log_weight: torch.Tensor) -> Placed:
    """Nodes with given weights under q. Their measure is weight / density."""
    return value, log_weight, log_weight - base.log_prob(value)


def constant(array: np.ndarray, index: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The entries of an array that `index` names, in the dtype and on the device of `like`."""
    return torch.as_tensor(array, dtype=like.dtype, device=like.device)[index.to(like.device)]
