"""What a distribution says of its values in two or three arrays: `parts(fn, value) -> {"mean": …, "scale": …}`.

A categorical law has no mean: it gives "probs". So does a Bernoulli law, whose mean they are. Every other law gives
"mean" and "scale" (its standard deviation). A law without a known mean, such as a flow's, gives the drawn value with
scale 0: averaged over draws these are its moments.
"""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

CHANCES = (dist.Bernoulli, dist.Categorical, dist.OneHotCategorical, torch.distributions.OneHotCategorical)
"""Laws that are described by probabilities."""


def base_of(fn: Any) -> Any:
    """The law of one variable, without products and masks."""
    while isinstance(fn, torch.distributions.Independent | dist.MaskedDistribution):
        fn = fn.base_dist
    return fn


def parts(fn: Any, value: Tensor) -> dict[str, Tensor]:
    """The description of a law; `value` is a draw of it, and gives the shape.

    Axes are those of the value, and one more, the classes, for a categorical law.
    """
    base = base_of(fn)
    if isinstance(base, CHANCES):
        probs = base.probs
        more = probs.shape[-1:] if isinstance(base, dist.Categorical) else ()
        return {"probs": probs.expand(value.shape + more)}
    found = _moments(fn, value)
    return dict(zip(("mean", "scale"), found, strict=True))


def expected(fn: Any, value: Tensor) -> Tensor:
    """E[x]: the mean, or the probabilities of a law that has none. `value` is a draw of it, and gives the shape."""
    found = parts(fn, value)
    return found["mean"] if "mean" in found else found["probs"]


def _moments(fn: Any, value: Tensor) -> tuple[Tensor, Tensor]:
    drawn = value.to(torch.get_default_dtype()), torch.zeros(value.shape, device=value.device)
    if isinstance(base_of(fn), dist.Delta):
        return drawn
    try:
        mean, scale = fn.mean.expand(value.shape), fn.variance.sqrt().expand(value.shape)
    except NotImplementedError:
        return drawn
    return (mean, scale) if mean.isfinite().all() and scale.isfinite().all() else drawn
