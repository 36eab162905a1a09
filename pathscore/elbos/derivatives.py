"""First and second derivatives of the counterfactual costs by the values that entered the program."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def derivatives(
    total: Tensor, leaves: Mapping[str, Tensor], events: Mapping[str, int]
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """The slope of `total` by each leaf (R, K, *plates, *event), and the curvature for the leaves in `events`.

    events: site -> number of event dimensions, for the sites whose curvature is wanted.
    """
    slopes = dict(zip(leaves, _slopes(total, list(leaves.values()), bool(events)), strict=True))
    curvatures = {name: curvature(slopes[name], leaves[name], ndims) for name, ndims in events.items()}
    return {name: (slope.detach(), curvatures.get(name)) for name, slope in slopes.items()}


def _slopes(total: Tensor, leaves: list[Tensor], again: bool) -> list[Tensor]:
    """The gradient by each leaf, 0 where no cost depends on it. again: whether it is differentiated once more."""
    if not total.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return list(
        torch.autograd.grad(
            total, leaves, retain_graph=True, create_graph=again, allow_unused=True, materialize_grads=True
        )
    )


def curvature(slope: Tensor, leaf: Tensor, event_dim: int) -> Tensor:
    """Second derivatives (R, K, *plates, N, N): one backward pass for each of the N variables of an event.

    A cost that two data points share adds the derivative by the other one's value to each: the sum is over the plates.
    """
    flat = _flat(slope, event_dim)
    columns = [_by(flat[..., n].sum(), leaf) for n in range(flat.shape[-1])]
    return torch.stack([_flat(column, event_dim) for column in columns], -1)


def _by(total: Tensor, leaf: Tensor) -> Tensor:
    """The gradient by the leaf, 0 where the cost is linear in it."""
    if not total.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(total, leaf, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


def _flat(t: Tensor, event_dim: int) -> Tensor:
    return t.flatten(-event_dim) if event_dim else t[..., None]
