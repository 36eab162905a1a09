"""Rows pass by pass, for programs that do not broadcast: `pass_by_pass(plan, model, guide, …) -> (draws, terms)`.

What one pass does for all rows (rows.py) is done here with one run of guide and model for each row, in the same order:
K base particles, then the counterfactual rows of each site. In a row of site s, sites drawn earlier copy the values of
their particle, s takes its coupled value, and later sites are drawn afresh or kept, as rows.py says. The loop is slow;
the estimate is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from pathscore.elbos.keeping import choose_kept, same_laws
from pathscore.elbos.plan import Plan, SitePlan
from pathscore.elbos.rows import Draw
from pathscore.elbos.terms import Term, Terms, collect
from pathscore.errors import UsageError
from pathscore.estimators.families import ENUMERABLE, family_of
from pathscore.programs.marks import Watch
from pathscore.programs.traces import PlainLaws


class OneRow(Messenger):
    """Draws the latent sites of one row: `held` values where there are any, fresh draws elsewhere.

    kept: the base draws of sites that keep them, unless their law is another one here (keeping.py).
    subsample: the indices that plates drew in the first row, and that all later rows take.
    """

    def __init__(self, plan: Plan, held: dict[str, Tensor], kept: dict[str, Draw], subsample: dict[str, Any]) -> None:
        super().__init__()
        self.plan, self.held, self.kept, self.subsample = plan, held, kept, subsample
        self.draws: dict[str, Draw] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample):
            if msg["name"] in self.subsample:
                msg["value"], msg["done"] = self.subsample[msg["name"]], True
            return
        if msg["is_observed"] or msg["done"] or msg["value"] is not None:
            return
        name, fn = msg["name"], msg["fn"]
        if name in self.held:
            self.draws[name] = Draw(fn, self.held[name].reshape(fn.batch_shape + fn.event_shape))
        elif name in self.kept:
            self.draws[name] = Draw(fn, self._kept(fn, name))
        else:
            self.draws[name] = self._fresh(fn, name)
        msg["value"], msg["done"] = self.draws[name].value, True

    def _kept(self, fn: Any, name: str) -> Tensor:
        base = self.kept[name]
        same = same_laws(fn, base.fn)
        return base.value if same is None else choose_kept(same, base.value, self._fresh(fn, name).value, fn.event_dim)

    def _fresh(self, fn: Any, name: str) -> Draw:
        estimator = self.plan.estimator(name)
        if family_of(fn) is None:  # a transform remembers the very tensor that it has drawn
            return Draw(fn, *estimator.sample(fn))
        padded = _with_row(fn, self.plan.max_plate_nesting)
        value, noise = estimator.sample(padded)
        return Draw(fn, value.reshape(fn.batch_shape + fn.event_shape), noise, padded)

    def _pyro_post_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample):
            self.subsample.setdefault(msg["name"], msg["value"])


class _Passes:
    """The passes of one step: their draws and terms, row by row."""

    def __init__(self, plan: Plan, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> None:
        self.plan, self.model, self.guide, self.args, self.kwargs = plan, model, guide, args, kwargs
        self.subsample: dict[str, Any] = {}
        self.draws: list[dict[str, Draw]] = []
        self.terms: list[Terms] = []
        self.guide_trace = Trace()  # of the last row

    def run(self, held: dict[str, Tensor], kept: dict[str, Draw], own: str | None = None) -> None:
        """One row; `own`: the site whose counterfactual it is."""
        sampler = OneRow(self.plan, held, kept, self.subsample)
        with sampler:
            self.guide_trace = poutine.trace(PlainLaws()(self.guide)).get_trace(*self.args, **self.kwargs)
            replayed = poutine.replay(PlainLaws()(self.model), trace=self.guide_trace)
            model_trace = poutine.trace(replayed).get_trace(*self.args, **self.kwargs)
        self.draws.append(sampler.draws)
        self.terms.append(collect(self._plan_of(own), model_trace, self.guide_trace))

    def _plan_of(self, own: str | None) -> Plan:
        single = replace(self.plan.base_only(), particles=1)
        if own is not None:
            single.slices[own] = slice(0, 1)
        return single

    def counterfactuals(self, site: SitePlan, draw: Draw) -> None:
        """The rows of one site, R for each particle."""
        draw.branch = site.estimator.branch(draw.base_fn, draw.value, draw.noise)
        draw.leaf = draw.branch.detach()
        if site.estimator.needs_slope and torch.is_grad_enabled():
            draw.leaf = draw.leaf.requires_grad_()
        for values in draw.leaf:  # R
            for k, value in enumerate(values):
                base, order = self.draws[k], self.plan.order
                held = {n: draw.value for n, draw in base.items() if order[n] < order[site.name]}
                redrawn = {*held, site.name, *self.plan.later_dependents(site.name)}
                kept = {n: draw for n, draw in base.items() if n not in redrawn}
                self.run({**held, site.name: value}, kept, site.name)


def pass_by_pass(
    plan: Plan, model: Callable, guide: Callable, args: tuple, kwargs: dict, watch: Watch
) -> tuple[dict[str, Draw], Terms]:
    """Draws and terms of all rows, as one pass would give them; `watch` has seen all of them.

    Raises: UsageError where a row meets other sites than the first.
    """
    passes = _Passes(plan, model, guide, args, kwargs)
    for _ in range(plan.particles):
        passes.run({}, {})
    draws = {name: _base(plan, name, passes.draws) for name in passes.draws[0]}
    for site in plan.sites.values():
        if site.rows:
            passes.counterfactuals(site, draws[site.name])
    for name, draw in draws.items():
        event = draw.fn.event_dim
        draw.value = torch.cat([_padded(row[name].value, plan, event) for row in passes.draws])
    plan.widen(watch.seen, passes.guide_trace)
    return draws, _stacked(plan, passes.terms)


def _base(plan: Plan, name: str, rows: list[dict[str, Draw]]) -> Draw:
    """The draws of the K particles at one site, with the row dimension in front."""
    found = [row[name] for row in rows if name in row]
    if len(found) < len(rows):
        raise UsageError(
            f"site {name!r} is drawn for some particles only: take --particles 1, or draw it always, masked"
        )
    value = torch.cat([_padded(d.value, plan, d.fn.event_dim) for d in found])
    draw = Draw(found[0].fn, value, _joined_noise([d.noise for d in found]))
    if found[0].base_fn is not None:
        draw.base_fn = joined([d.base_fn for d in found])
    return draw


def _padded(value: Tensor, plan: Plan, event: int) -> Tensor:
    """A value of one row as (1, *plates, *event)."""
    return value[(None,) * (plan.max_plate_nesting + 1 + event - value.ndim)]


def _with_row(fn: Any, nesting: int) -> Any:
    """`fn` with batch shape (1, *plates)."""
    return fn.expand((1,) * (nesting + 1 - len(fn.batch_shape)) + tuple(fn.batch_shape))


def joined(fns: list[Any]) -> Any:
    """Distributions of one family, one for each row, as one with their batch shapes joined in front."""
    first = fns[0]
    if isinstance(first, torch.distributions.Independent):
        base = joined([fn.base_dist for fn in fns])
        return dist.Independent(base, first.reinterpreted_batch_ndims, validate_args=False)
    family = family_of(first)
    if len(fns) == 1:
        return first
    assert family is not None
    if family is ENUMERABLE:
        return _joined_own(fns)
    held = {name: [getattr(fn, name) for fn in fns] for name in family.parameters}
    parameters = {n: torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0] for n, parts in held.items()}
    return getattr(dist, type(first).__name__, type(first))(**parameters, validate_args=False)


def _joined_own(fns: list[Any]) -> Any:
    """The same for a class that is not known here: every tensor of its batch shape is joined."""
    shape = fns[0].batch_shape
    parts = [fn.base_dist if isinstance(fn, ExpandedDistribution) else fn for fn in fns]
    first, held = parts[0], [vars(part) for part in parts]
    batch = tuple(first.batch_shape)
    if any(isinstance(value, torch.distributions.Distribution) for value in held[0].values()):
        raise UsageError(f"a {type(first).__name__} runs pass by pass with one particle only: take --particles 1")
    front = (1,) * (len(shape) - len(batch))
    copied = object.__new__(type(first))
    copied.__dict__.update(held[0], _batch_shape=torch.Size((len(fns), *(front + batch)[1:])))
    for name, value in held[0].items():
        if isinstance(value, Tensor) and tuple(value.shape[: len(batch)]) == batch:
            copied.__dict__[name] = torch.cat([part[name].reshape(front + value.shape) for part in held])
    return copied.expand(torch.Size((len(fns), *shape[1:])))


def _joined_noise(noises: list[Any]) -> Any:
    leaves, layout = zip(*(tree_flatten(noise) for noise in noises), strict=True)
    cat = [torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0] for parts in zip(*leaves, strict=True)]
    return tree_unflatten(cat, layout[0])


def _stacked(plan: Plan, rows: list[Terms]) -> Terms:
    """The terms of single rows as the terms of one pass."""
    keys = [t.key for t in rows[0].terms]
    for row in rows[1:]:
        if [t.key for t in row.terms] != keys:
            names = {t.key[1] for t in row.terms} ^ {name for _, name in keys}
            raise UsageError(
                f"site {', '.join(map(repr, sorted(names)))} is met in some rows only: take --particles 1 and an "
                "estimator without counterfactual rows, or draw it always, masked"
            )
    terms = [_joined_term(parts) for parts in zip(*(row.terms for row in rows), strict=True)]
    scores = {name: _cat([row.scores[name] for row in rows]) for name in rows[0].scores}
    return Terms(plan, terms, scores, rows[0].sites, rows[0].observed)


def _joined_term(parts: tuple[Term, ...]) -> Term:
    return replace(parts[0], value=_cat([t.value for t in parts]), path=_cat([t.path for t in parts]))


def _cat(parts: list[Any]) -> Any:
    """Tensors (1, *plates) joined in front; numbers (an absent part) stay as they are."""
    if not isinstance(parts[0], Tensor):
        return parts[0]
    shape = torch.broadcast_shapes(*(p.shape[1:] for p in parts))
    return torch.cat([p.expand(1, *shape) for p in parts])
