"""Leaves: a zero added to every parameter of the guide's latent sites, to be differentiated by.

`Leaves(depth).attached(guide)` is the same program with z ~ q(z; θ + δ), δ = 0, at each latent site: loc and scale of a
Normal, logits of a Bernoulli.  The gradient by δ is the gradient by the site's own distribution parameters, which a
gradient estimator is about; what lies behind them (an encoder, say) only passes it on.  A site whose parameters depend
on earlier draws has no fixed θ, but it has a δ: one for all rows.

Shapes: δ is (N, *plates, *event) for N replicates, one dimension for each of the program's `depth` plates, or
(*plates, *event) without replicates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pathscore.errors import UsageError
from pathscore.estimators.families import family_of

Key = tuple[str, str]


def parameter_names(fn: Any) -> tuple[str, ...]:
    """The parameters that a distribution was made of: a family's own, else those it keeps; none for a point mass."""
    inner = core(fn)
    family = family_of(inner)
    if family is not None and family.parameters:
        return family.parameters
    if isinstance(inner, dist.Delta):
        return ()
    names = tuple(inner.arg_constraints)
    return tuple(n for n in names if n in vars(inner)) or names


def core(fn: Any) -> Any:
    """The distribution that holds the parameters: without `.to_event`, `.mask` and `.expand`."""
    while isinstance(fn, torch.distributions.Independent | dist.MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    return fn


def shifted(fn: Any, offsets: dict[str, Tensor]) -> Any:
    """`fn` with `offsets` added to its parameters: the same distribution where they are zero."""
    if isinstance(fn, dist.MaskedDistribution):
        return shifted(fn.base_dist, offsets).mask(fn._mask)
    if isinstance(fn, ExpandedDistribution):
        return shifted(fn.base_dist, offsets)  # the offsets have its shape
    if isinstance(fn, torch.distributions.Independent):
        return type(fn)(shifted(fn.base_dist, offsets), fn.reinterpreted_batch_ndims, validate_args=False)
    parameters = {name: getattr(fn, name) + offset for name, offset in offsets.items()}
    return getattr(dist, type(fn).__name__, type(fn))(**parameters, validate_args=False)


class Leaves(Messenger):
    """Adds fresh leaves to the parameters of latent sites; `tensors` maps (site, parameter) to those of the last run.

    depth: plates of the program. count: replicates N; None leaves their dimension out.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.count: int | None = None
        self.tensors: dict[Key, Tensor] = {}

    def attached(self, guide: Callable) -> Callable:
        """The guide as a program with leaves."""

        def with_leaves(*args: Any, **kwargs: Any) -> Any:
            with self:
                return guide(*args, **kwargs)

        return with_leaves

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        name, fn = msg["name"], msg["fn"]
        offsets = {p: self._leaf(name, fn, p) for p in parameter_names(fn)}
        if not offsets:
            return
        try:
            msg["fn"] = shifted(fn, offsets)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"site '{name}': a {type(core(fn)).__name__} cannot be made anew from {', '.join(offsets)} "
                f"({error}): measure the gradient of the weights instead (of='weights')"
            ) from None
        self.tensors.update({(name, p): leaf for p, leaf in offsets.items()})

    def _leaf(self, site: str, fn: Any, name: str) -> Tensor:
        """The leaf of one parameter; passes of one draw share it, as they share its shape."""
        inner = core(fn)
        parameter = getattr(inner, name)
        missing = fn.batch_shape + fn.event_shape  # of every dimension, expanded ones too
        own = parameter.shape[len(inner.batch_shape) :]  # of one element of the law: a matrix, say
        elements = missing[: len(missing) - len(inner.event_shape)]
        ndims = len(fn.batch_shape)
        plates = tuple(elements[max(0, ndims - self.depth) : ndims])
        lead = () if self.count is None else (self.count, *(1,) * (self.depth - len(plates)))
        shape = (*lead, *plates, *elements[ndims:], *own)
        old = self.tensors.get((site, name))
        if old is not None and old.shape == shape and old.dtype == parameter.dtype and old.device == parameter.device:
            return old
        return torch.zeros(shape, dtype=parameter.dtype, device=parameter.device, requires_grad=True)
