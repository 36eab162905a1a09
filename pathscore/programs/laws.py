"""Distributions that need care: straight-through distributions, and transforms that cache their draw.

`discrete_law(fn)` is the distribution of the values that a straight-through distribution draws. `log_prob(fn, value)`
is log q at a fixed value.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Independent, TransformedDistribution

from pathscore.programs.untouched import rehearsal

STRAIGHT_THROUGH: dict[type, type] = {
    torch.distributions.OneHotCategoricalStraightThrough: dist.OneHotCategorical,
    dist.RelaxedOneHotCategoricalStraightThrough: dist.OneHotCategorical,
    dist.RelaxedBernoulliStraightThrough: dist.Bernoulli,
}
"""Distributions that draw discrete values but have `has_rsample`, and the distribution of these values. The derivative
of `rsample` is that of a relaxed value, so the pathwise gradient is biased. Pyro's also use the relaxed density."""


def is_straight_through(fn: Any) -> bool:
    """Whether the derivative of a draw is that of another, relaxed value."""
    return isinstance(_inner(fn), tuple(STRAIGHT_THROUGH))


def discrete_law(fn: Any) -> Any:
    """The distribution of the values that a straight-through distribution draws; any other one is returned as it is."""
    if isinstance(fn, Independent):
        base = discrete_law(fn.base_dist)
        return fn if base is fn.base_dist else dist.Independent(base, fn.reinterpreted_batch_ndims)
    for kind, law in STRAIGHT_THROUGH.items():
        if isinstance(fn, kind):
            return law(logits=fn.logits)  # type: ignore[attr-defined]  # all of these families have logits
    return fn


def is_transformed(fn: Any) -> bool:
    """Whether transforms make the values. log q at a fixed value then depends on the parameters of the transforms."""
    return isinstance(_inner(fn), TransformedDistribution)


def log_prob(fn: Any, value: Tensor) -> Tensor:
    """log q(value) at this fixed value, differentiable in every parameter.

    A transform that caches its latest draw returns the noise of this draw, which does not depend on the parameters of
    the transform. The score ∇ log q would then lack them. The cache finds a value by its identity, so a view of the
    value is inverted without the cache. To invert an autoregressive flow takes one pass of its network per dimension.
    """
    return fn.log_prob(value.view_as(value) if is_transformed(fn) else value)


def no_inverse(fn: Any) -> str | None:
    """The name of a transform without an inverse, for which log q of a given value cannot be computed; else None.

    Consumes no random numbers.
    """
    if not is_transformed(fn):
        return None
    with rehearsal(fn), torch.no_grad():
        value = fn.sample()
        try:
            log_prob(fn, value)
        except (KeyError, NotImplementedError, RuntimeError):
            return ", ".join(type(t).__name__ for t in _inner(fn).transforms)
    return None


def _inner(fn: Any) -> Any:
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn
