"""What gradients are reference: the exact one where the program can be summed out, else a long unbiased run.

`find_exact(lab) -> Reference | None`; `long_run(lab, runs, count, seed) -> Reference`.  `source` says which.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

from torch import Tensor

from pathscore import exact
from pathscore.elbos import ELBOS
from pathscore.errors import UsageError
from pathscore.estimators.families import family_name, support_size
from pathscore.gradients.records import Reference, Run
from pathscore.machine.streams import beside

COARSE, CONVERGED = 49, 1e-4
"""Nodes of a second, coarser quadrature, and how far (relatively) the two gradients may differ: a kink in the model's
density, |z| of a Laplace prior for one, can spoil a rule that is exact for smooth functions."""

EXACT_VALUES = 30_000_000
"""Most values of sample sites that summing out may hold."""


def find_exact(lab: Any) -> Reference | None:
    """The exact gradient by enumeration, quadrature or in closed form; None where it is not computable."""
    pair = lab.pair
    for source, bound, check, possible in methods(lab):
        if not possible(pair):
            continue
        try:
            gradient = pair.exactly(bound).detach().cpu().double()
            apart = (gradient - pair.exactly(check).detach().cpu()).norm() if check else 0.0
        except Exception:  # too many states, no rule, not quadratic, or a program that cannot take all states at once
            continue
        if apart <= CONVERGED * gradient.norm():
            return Reference(gradient, 0.0, source, True)
    return None


def methods(lab: Any) -> tuple[Method, ...]:
    """Ways to the exact gradient of the lab's objective: the ELBO, or the K-sample bound where draws share weights."""
    if ELBOS[lab.elbo].credit != "weights":
        return METHODS
    bound = partial(exact.importance_bound, num_particles=lab.particles, alpha=lab.options.get("alpha", 0.0))
    return (("exact gradient (sum over all sets of K draws)", bound, None, _finite),)


def _finite(pair: Any) -> bool:
    return _countable(pair) and all(support_size(site["fn"]) < inf for site in pair.latents.values())


def _countable(pair: Any) -> bool:
    try:
        with pair.alone() as programs:
            states = exact.count_states(*programs, *pair.args, **pair.kwargs)
    except UsageError:
        return False
    return states <= exact.STATE_LIMIT and states * pair.values <= EXACT_VALUES


def _gaussian(pair: Any) -> bool:
    return all(family_name(site["fn"]) == "normal" for site in pair.latents.values())


Bound = Callable[..., Tensor]
SUMMED = partial(exact.elbo, check=False)  # `find_exact` compares the gradients themselves
Method = tuple[str, Bound, Bound | None, Callable[[Any], bool]]
METHODS: tuple[Method, ...] = (
    ("exact gradient (closed form)", exact.gaussian.elbo, None, _gaussian),
    ("exact gradient (sum over all joint states)", exact.elbo, None, _finite),
    ("exact gradient (quadrature)", SUMMED, partial(SUMMED, nodes=COARSE), _countable),
)
"""What it is, the bound, a coarser one to check it by, and for which programs."""


def long_run(lab: Any, runs: list[Run], count: int, seed: int, end: float = inf) -> Reference:
    """The mean of `count` further draws of the unbiased estimator among `runs` that gets there fastest.

    Raises: UsageError when none of them is unbiased.
    """
    unbiased = [run for run in runs if run.unbiased]
    if not unbiased:
        raise UsageError(
            "the exact gradient of this program is not computable and every estimator named is biased: "
            "add an unbiased one to --estimators, for example score"
        )
    best = min(unbiased, key=lambda run: run.moments.variance.sum().item() * run.milliseconds)
    with beside(lab.device, "reference", seed):
        moments, _, _ = lab.draw(best.elbo, count, end)
    source = f"mean of {moments.count:,} further draws of {best.name} (exact gradient not computable)"
    error = moments.variance / moments.count + moments.unseen(list(best.groups.values())).square()
    return Reference(moments.mean, error, source, False)
