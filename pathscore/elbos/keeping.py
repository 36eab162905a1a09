"""Which draws of a counterfactual row are those of its base row: `same_law(fn, base, rows)`, (rows, *plates).

A site that does not depend on the site of a row has the base row's law there, and keeps the base draw. Which sites
these are was found before the first step (dependence.py), for the calls that had been seen. So the parameters of both
laws are compared in every step, member by member of the plates: where they differ, the draw is one of the row's own.
Given all that was drawn before, a kept draw then has the row's law. So the mean of every row's cost is what it is with
fresh draws.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pathscore.elbos.dependence import parameters_of

ROUNDING = 100
"""Numbers within this many units of rounding are equal: one network may round two equal rows differently."""


def close(a: Tensor, b: Tensor) -> Tensor:
    """Whether numbers are equal to rounding, element by element."""
    if not a.is_floating_point():
        return a == b
    unit = ROUNDING * torch.finfo(a.dtype).eps
    return torch.isclose(a, b, rtol=unit, atol=unit, equal_nan=True)


def same_law(fn: Any, base: slice, rows: slice) -> Tensor | None:
    """Whether rows of `fn` have the law of their base rows, (rows, *plates); None where no parameters show it."""
    parameters = _by_member(fn)
    if parameters is None:
        return None
    return _alike(
        [(p[rows], p[base].repeat((rows.stop - rows.start) // base.stop, *[1] * (p.ndim - 1))) for p in parameters]
    )


def same_laws(fn: Any, base: Any) -> Tensor | None:
    """Whether two distributions of one row have the same law, (*plates); None where no parameters show it."""
    own, others = _by_member(fn), _by_member(base)
    if own is None or others is None or type(fn) is not type(base):
        return None
    if len(own) != len(others):
        for law in (fn, base):
            _compute_all(law)
        own, others = _by_member(fn) or [], _by_member(base) or []
    if len(own) != len(others):  # not to be compared: the draw is one of the row's own
        return torch.zeros(fn.batch_shape, dtype=torch.bool)
    return _alike(list(zip(own, others, strict=True)))


def _by_member(fn: Any) -> list[Tensor] | None:
    """The parameters of each member, (*batch, numbers); None where there are none, or of other shapes."""
    batch = tuple(fn.batch_shape)
    parameters = [p.detach() for p in parameters_of(fn)]
    if not parameters or any(tuple(p.shape[: len(batch)]) != batch for p in parameters):
        return None
    return [p.reshape(*batch, -1) for p in parameters]


def _compute_all(fn: Any) -> None:
    """Have a distribution compute all its parameters: one that was asked for `probs` beside its `logits` keeps both."""
    for name in fn.arg_constraints:
        getattr(fn, name, None)
    for part in [part for part in vars(fn).values() if isinstance(part, torch.distributions.Distribution)]:
        _compute_all(part)


def _alike(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.stack([close(a, b).all(-1) for a, b in pairs]).all(0)


def choose_kept(same: Tensor | None, kept: Tensor, fresh: Tensor, event_dim: int) -> Tensor:
    """The kept values where the laws are the same, or show no parameters to compare; fresh ones elsewhere."""
    return kept if same is None else torch.where(same[(...,) + (None,) * event_dim], kept, fresh)
