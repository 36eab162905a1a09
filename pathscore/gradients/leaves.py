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
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pathscore.errors import UsageError
from pathscore.estimators.families import family_of, unwrap

Key = tuple[str, str]


def parameter_names(fn: Any) -> tuple[str, ...]:
    """The parameters that a distribution was made of: a family's own, else those it keeps; none for a point mass."""
    family, inner = family_of(fn), unwrap(fn)
    if family is not None:
        return family.parameters
    if isinstance(inner, dist.Delta):
        return ()
    names = tuple(inner.arg_constraints)
    return tuple(n for n in names if n in vars(inner)) or names


def shifted(fn: Any, offsets: dict[str, Tensor]) -> Any:
    """`fn` with `offsets` added to its parameters: the same distribution where they are zero."""
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
        offsets = {p: self._leaf(fn, getattr(unwrap(fn), p)) for p in parameter_names(fn)}
        if not offsets:
            return
        try:
            msg["fn"] = shifted(fn, offsets)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"site '{name}': a {type(unwrap(fn)).__name__} cannot be made anew from {', '.join(offsets)} "
                f"({error}): measure the gradient of the weights instead (of='weights')"
            ) from None
        self.tensors.update({(name, p): leaf for p, leaf in offsets.items()})

    def _leaf(self, fn: Any, parameter: Tensor) -> Tensor:
        ndims = len(fn.batch_shape)
        plates = tuple(parameter.shape[max(0, ndims - self.depth) : ndims])
        lead = () if self.count is None else (self.count, *(1,) * (self.depth - len(plates)))
        shape = (*lead, *plates, *parameter.shape[ndims:])
        return torch.zeros(shape, dtype=parameter.dtype, device=parameter.device, requires_grad=True)
