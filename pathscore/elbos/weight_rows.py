"""Whether the rows of a layer's input are data points: `require_rows(…)`, for estimators that perturb weights by row.

`flipout` gives each row of an input its own weights. That is right where a row is a data point: what comes of it enters
the terms of this data point and no other. One pass of the programs shows it. The terms of half of the data points get
other weights in a sum; the derivative by the rows of the other half must not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pathscore.elbos.plan import Plan
from pathscore.errors import UsageError
from pathscore.estimators.perturbed import Perturbed
from pathscore.programs.traces import PlainLaws, plates_of, sample_sites

CLOSE = 1e-3
"""Relative change of a derivative that is rounding."""


def require_rows(
    plan: Plan, model: Callable, guide: Callable, args: tuple, kwargs: dict, sampler: Callable[[Plan], Any]
) -> None:
    """Raise UsageError where an input of a perturbed weight has rows that are not the data points of a plate.

    sampler: makes the handler that draws the latent sites of a pass. Call it where a rehearsal is undone.
    """
    single = replace(plan.base_only(), particles=1)
    with torch.enable_grad():
        with sampler(single) as drawn:
            guide_trace = poutine.trace(PlainLaws()(guide)).get_trace(*args, **kwargs)
        weights = {n: d.value for n, d in drawn.draws.items() if isinstance(d.value, Perturbed)}
        for weight in weights.values():
            weight.rule.outputs = []
        replayed = poutine.replay(PlainLaws()(model), trace=guide_trace)
        model_trace = poutine.trace(replayed).get_trace(*args, **kwargs)
        for name, weight in weights.items():
            for output in weight.rule.outputs or []:
                for term, site in sample_sites(model_trace).items():
                    if not _apart(site, output):
                        raise UsageError(
                            f"--estimator: site '{name}': {weight.rule.word} gives each row of an input weights of its "
                            f"own, and the {len(output)} rows of an input here are not the data points of a plate of "
                            f"'{term}': use pathwise"
                        )


def _apart(site: Any, output: Tensor) -> bool:
    """Whether each row of an output enters the terms of one data point of the site alone, or none at all."""
    log_prob = site["fn"].log_prob(site["value"])
    if not log_prob.requires_grad or len(output) < 2:
        return True
    if _derivative(log_prob, output, torch.ones_like(log_prob)) is None:
        return True
    return any(_apart_along(log_prob, output, dim) for dim in _dims(site, log_prob, len(output)))


def _dims(site: Any, log_prob: Tensor, rows: int) -> Iterator[int]:
    """The dimensions of a site's plates that have as many members as the output has rows."""
    for plate in plates_of(site):
        if -plate.dim <= log_prob.dim() and log_prob.shape[plate.dim] == rows:
            yield plate.dim


def _apart_along(log_prob: Tensor, output: Tensor, dim: int) -> bool:
    half = len(output) // 2
    one = torch.rand_like(log_prob) + 0.5
    other = torch.cat([one.narrow(dim, 0, half), 1 + torch.rand_like(one.narrow(dim, half, len(output) - half))], dim)
    found = [_derivative(log_prob, output, weights) for weights in (one, other)]
    first, second = (g[:half] for g in found if g is not None)
    return bool((first - second).abs().max() <= CLOSE * first.abs().max())


def _derivative(log_prob: Tensor, output: Tensor, weights: Tensor) -> Tensor | None:
    """∂(Σ weights · log p)/∂output, or None where it does not depend on it."""
    return torch.autograd.grad(log_prob, output, weights, retain_graph=True, allow_unused=True)[0]
