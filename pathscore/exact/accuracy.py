"""Is a quadrature rule accurate enough? `checked(quantity)` compares it with coarser rules and warns where they differ.

Gauss and double exponential rules are exact up to rounding for smooth densities. They can be wrong by several per cent
where a density has a kink between two nodes: |z| of a Laplace prior with another centre than the guide, relu, abs,
clamp. Two coarser rules show this. Where all three agree, the quantity has converged; otherwise their difference
estimates the error. Sums over a finite support are exact and are not compared.
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
"""Largest difference that is not reported, relative to the size of the quantity; float32 rounding stays below it."""

OWN = ("max_plate_nesting", "num_particles", "alpha")
"""Options of the quantities that are not passed to the programs."""


class QuadratureWarning(UserWarning):
    """An exact quantity may not be exact: coarser quadrature gives another value."""


def coarser(nodes: int) -> tuple[int, int]:
    """Numbers of nodes of two coarser rules, whose nodes lie elsewhere. A single one might agree by chance."""
    nodes = min(nodes, GAUSS_LIMIT)
    return max(2, nodes - 3), max(2, nodes - 7)


def approximate(model, guide, args: tuple, options: dict, nodes: int) -> list[str]:
    """The latent sites that are integrated by a quadrature rule."""
    kwargs = {name: value for name, value in options.items() if name not in OWN}
    return [s.name for s in latents_of(model, guide, args, kwargs, nodes) if not s.rule.exact]


def same_random_numbers() -> Any:
    """Restore the random generators on leaving, so that a plate's subsample is drawn again in the same way."""
    return torch.random.fork_rng(cuda_in_use())


def checked(
    quantity: Callable[..., torch.Tensor], *, name: str | None = None, floor: float = 1.0
) -> Callable[..., torch.Tensor]:
    """`quantity(model, guide, *args, nodes=…, **options)`, compared with the results of coarser rules.

    The option `check=False` skips the comparison. Issues QuadratureWarning where elements differ by more than
    1e-4 (`floor` + the largest element). The attribute `unchecked` is the quantity itself.
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
        "few, or a density has a kink there, as a Laplace prior has: raise nodes and check that the value converges, "
        "or estimate by sampling",
        QuadratureWarning,
        stacklevel=3,
    )
