"""Laws of sample sites that are not what they seem: straight-through laws, and transforms that remember their draw.

`discrete_law(fn)` is the law whose values a straight-through law draws; `log_prob(fn, value)` is log q at a fixed
value.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Independent, TransformedDistribution

STRAIGHT_THROUGH: dict[type, type] = {
    torch.distributions.OneHotCategoricalStraightThrough: dist.OneHotCategorical,
    dist.RelaxedOneHotCategoricalStraightThrough: dist.OneHotCategorical,
    dist.RelaxedBernoulliStraightThrough: dist.Bernoulli,
}
"""Laws that draw discrete values and say `has_rsample`, and the law of these values. Their `rsample` is no path: its
derivative is that of a relaxed value, so the gradient is biased. Pyro's also score the relaxed density."""


def is_straight_through(fn: Any) -> bool:
    """Whether the derivative of a draw is that of another, relaxed value."""
    return isinstance(_inner(fn), tuple(STRAIGHT_THROUGH))


def discrete_law(fn: Any) -> Any:
    """The law of the values that a straight-through law draws, with the same parameters; any other law as it is."""
    if isinstance(fn, Independent):
        base = discrete_law(fn.base_dist)
        return fn if base is fn.base_dist else dist.Independent(base, fn.reinterpreted_batch_ndims)
    for kind, law in STRAIGHT_THROUGH.items():
        if isinstance(fn, kind):
            return law(logits=fn.logits)  # type: ignore[attr-defined]  # every one of them has logits
    return fn


def is_transformed(fn: Any) -> bool:
    """Whether values are made by transforms, whose parameters log q depends on at a fixed value."""
    return isinstance(_inner(fn), TransformedDistribution)


def log_prob(fn: Any, value: Tensor) -> Tensor:
    """log q(value), with the dependence on every parameter at this fixed value.

    A transform that caches its latest draw returns the noise behind it, which does not depend on the parameters of the
    transform: the score ∇ log q would lack them. The cache knows a value by its identity, so a view of it is inverted.
    Inverting an autoregressive flow takes one pass of its network for each dimension.
    """
    return fn.log_prob(value.view_as(value) if is_transformed(fn) else value)


def no_inverse(fn: Any) -> str | None:
    """Why log q of a given value cannot be computed: the name of a transform without an inverse; None where it can.

    Consumes no random numbers.
    """
    if not is_transformed(fn):
        return None
    with torch.random.fork_rng(), torch.no_grad():
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
