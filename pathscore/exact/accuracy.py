"""Is a quadrature rule fine enough? `checked(quantity)` computes it by coarser rules too, and warns where they differ.

Gauss and double exponential rules are exact to rounding for smooth densities, and wrong by per cents where a density
has a kink between two nodes: |z| of a Laplace prior that is centred elsewhere than the guide, relu, abs, clamp. A rule
cannot tell by itself. Two coarser ones can: where they agree with it the quantity has converged, else their distance
says by how much it may be off. Sums over a finite support are exact, and are not done twice.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch

from pathscore.exact.enumeration import NODES, latents_of
from pathscore.exact.gauss import GAUSS_LIMIT
from pathscore.exact.rows import cuda_in_use

TOLERANCE = 1e-4
"""Largest difference that is not reported, relative to the quantity's size; rounding in float32 stays below."""

OWN = ("max_plate_nesting", "num_particles", "alpha")
"""Options of quantities that do not go on to the programs."""


class QuadratureWarning(UserWarning):
    """An exact quantity is not exact: coarser quadrature gives another value."""


def coarser(nodes: int) -> tuple[int, int]:
    """Two rules to compare with, of slightly fewer nodes, which lie elsewhere; one might agree by chance."""
    nodes = min(nodes, GAUSS_LIMIT)
    return max(2, nodes - 3), max(2, nodes - 7)


def approximate(model, guide, args: tuple, options: dict, nodes: int) -> list[str]:
    """The latent sites that a quadrature rule stands in for."""
    kwargs = {name: value for name, value in options.items() if name not in OWN}
    return [s.name for s in latents_of(model, guide, args, kwargs, nodes) if not s.rule.exact]


def same_random_numbers() -> Any:
    """What is drawn inside (a plate's subsample) is drawn again afterwards."""
    return torch.random.fork_rng(cuda_in_use())


def checked(
    quantity: Callable[..., torch.Tensor], *, name: str | None = None, floor: float = 1.0
) -> Callable[..., torch.Tensor]:
    """`quantity(model, guide, *args, nodes=…, **options)`, compared with what coarser rules give.

    The option `check=False` leaves the comparison out. Issues QuadratureWarning where elements differ by more than
    1e-4 (`floor` + the largest element). `unchecked` is the quantity itself.
    """
    label = name or getattr(quantity, "__name__", "quantity")

    @functools.wraps(quantity)
    def wrapped(model, guide, *args, nodes: int = NODES, check: bool = True, **options):
        sites = approximate(model, guide, args, options, nodes) if check else []
        others = []
        for fewer in coarser(nodes) if sites else ():
            with same_random_numbers(), torch.no_grad():
                others.append(quantity(model, guide, *args, nodes=fewer, **options))
        found = quantity(model, guide, *args, nodes=nodes, **options)
        if others:
            _compare(label, sites, nodes, found.detach(), others, floor)
        return found

    wrapped.unchecked = quantity  # type: ignore[attr-defined]  # an attribute of a function
    return wrapped


def _compare(
    name: str, sites: list[str], nodes: int, found: torch.Tensor, others: list[torch.Tensor], floor: float
) -> None:
    apart = max((found - other).abs().max().item() for other in others)
    if apart <= TOLERANCE * (floor + found.abs().max().item()):
        return
    warnings.warn(
        f"exact.{name} is off by about {apart:.1g}: {nodes} quadrature nodes at {', '.join(map(repr, sites))} are too "
        "few, or a density has a kink there, as a Laplace prior has: raise nodes and see whether it settles, or "
        "estimate by sampling",
        QuadratureWarning,
        stacklevel=3,
    )
