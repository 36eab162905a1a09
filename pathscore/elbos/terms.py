"""The terms of the bound, row by row: log p and −log q of every site, scaled and masked, and sums of them.

A term's tensors are (rows, *plates) with one dimension for each of the `max_plate_nesting` plates (1 where the site is
not in it).  `credit` sums terms to a site's plates: per data point, not per batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pathscore.elbos.dependence import Depends, TermKey
from pathscore.elbos.keeping import close
from pathscore.elbos.plan import Plan
from pathscore.errors import UsageError
from pathscore.estimators.base import Estimator
from pathscore.estimators.families import narrow
from pathscore.programs.broadcasting import REMEDY, wrong_shape
from pathscore.programs.traces import plates_of, sample_sites


@dataclass
class Term:
    """One summand of log p − log q.

    value is what the bound reports, path what it differentiates (they differ where −log q, or a part of it, has mean
    gradient zero and is left out); both (rows, *plates), in nats.
    """

    key: TermKey
    plates: frozenset
    value: Tensor
    path: Tensor


@dataclass
class Terms:
    """All terms of one pass, with the score functions of the latent sites (unscaled, (rows, *plates))."""

    plan: Plan
    terms: list[Term]
    scores: dict[str, Any]
    sites: dict[str, Any]
    observed: list[Any]

    def scores_shape(self, name: str) -> tuple[int, ...]:
        """Shape (K, *plates) of a site's per-draw quantities."""
        fn = self.sites[name]["fn"]
        missing = self.plan.max_plate_nesting + 1 - len(fn.batch_shape)
        return (self.plan.particles, *((1,) * missing + tuple(fn.batch_shape))[1:])

    def credited(self, name: str, depends: Depends | None) -> Iterable[Term]:
        """The terms that are part of the cost of site `name`: those that depend on it, or all."""
        for term in self.terms:
            if term.key == ("kl", name):
                continue  # a function of what was drawn upstream only
            if depends is None or name in depends_on(depends, term.key):
                yield term

    def cost(self, name: str) -> Tensor:
        """Σ of the credited terms to the site's plates, without a graph: (rows, *plates).

        With counterfactual rows, terms that do not depend on the site count where they move all the same: a dependence
        that was not found brings no bias, and the others no noise.
        """
        rows = self.plan.slices.get(name)
        if rows is None:
            return self._credited_sum(name)
        found = self._sum(self._apart(name, lambda value: self._moved(value, rows)), name)
        known = any(True for _ in self.credited(name, self.plan.row_depends))
        return found if known else found + self._nothing(name)  # no term need have the site's plates

    def cost_in_rows(self, name: str, rows: slice) -> Tensor:
        """The cost of a site in the counterfactual rows of an earlier one, (R × K, *plates).

        Terms that do not depend on the site count by what they differ from their base row, which is free of the site's
        draw there.
        """
        return self._sum(self._apart(name, self._from_base), name)[rows]

    def _apart(self, name: str, reduced: Callable[[Tensor], Tensor]) -> list[tuple[Term, Tensor]]:
        """Every term and what it costs the site: in full if it is known to depend on it, else `reduced`."""
        known = {t.key for t in self.credited(name, self.plan.row_depends)}
        terms = [t for t in self.credited(name, None) if t.key in known or self.plan.may_cost(name, t.key)]
        values = [(t, t.value.detach().expand(self.plan.rows, *t.value.shape[1:])) for t in terms]
        return [(t, value if t.key in known else reduced(value)) for t, value in values]

    def _moved(self, value: Tensor, rows: slice) -> Tensor:
        """`value` of the particles and members for which it is not the same in all these rows; 0 of the others."""
        base = value[: self.plan.particles]
        moved = ~close(value[rows].unflatten(0, (-1, len(base))), base).all(0)
        return torch.where(self._for_all(moved, value), value, 0.0)

    def _from_base(self, value: Tensor) -> Tensor:
        """`value` less that of each row's base row; 0 where they are the same, infinities too."""
        base = self._for_all(value[: self.plan.particles], value)
        return torch.where(close(value, base), 0.0, value - base)

    @staticmethod
    def _for_all(base: Tensor, value: Tensor) -> Tensor:
        """What belongs to the K base rows, (K, *plates), repeated for all rows."""
        return base.repeat(len(value) // len(base), *[1] * (base.ndim - 1))

    def _credited_sum(self, name: str) -> Tensor:
        terms = list(self.credited(name, self.plan.depends))
        key = frozenset((t.key, self._target(name, t)) for t in terms)
        if key not in self._costs:
            self._costs[key] = self._sum([(t, t.value.detach()) for t in terms], name)
        return self._costs[key]

    def _sum(self, parts: list[tuple[Term, Tensor]], name: str) -> Tensor:
        """Σ over the terms, and over the plates that the site does not have, or that are one cost."""
        summed = [sum_to(value, t.plates, self._target(name, t)) for t, value in parts]
        if not summed:  # no term depends on the site
            return self._nothing(name)
        return torch.stack(torch.broadcast_tensors(*summed)).sum(0)

    def _nothing(self, name: str) -> Tensor:
        """The cost of a site on which no term depends."""
        return self.terms[0].value.new_zeros(self.plan.rows, *self.scores_shape(name)[1:])

    def _target(self, name: str, term: Term) -> frozenset:
        """The site's plates over which its members have their own share of a term."""
        plates = plates_of(self.sites[name])
        for later, coupled in self.plan.couplers.get(name, {}).items():
            if later in depends_on(self.plan.links, term.key):
                plates = frozenset(f for f in plates if f.name not in coupled)
        return plates

    @cached_property
    def _costs(self) -> dict[Any, Tensor]:
        return {}


def depends_on(depends: Depends, key: TermKey) -> frozenset[str]:
    """Latent sites that a term depends on; an analytic KL term depends on the parameters of both distributions."""
    kind, name = key
    if kind != "kl":
        return depends.get(key, frozenset())
    return (depends["q", name] - {name}) | depends["prior", name]


def sum_to(value: Tensor, plates: frozenset, target: frozenset) -> Tensor:
    """Sum a term over the plates that `target` does not have (dimensions kept)."""
    dims = [f.dim for f in plates - target if value.shape[f.dim] != 1]
    return value.sum(dims, keepdim=True) if dims else value


def collect(plan: Plan, model_trace: Trace, guide_trace: Trace) -> Terms:
    """The terms of a pass whose latent sites were drawn by a `RowSampler`."""
    model_sites, guide_sites = sample_sites(model_trace), sample_sites(guide_trace)
    terms = [_model_term(plan, s) for n, s in model_sites.items() if n not in plan.analytic]
    scores: dict[str, Any] = {}
    for name, site in guide_sites.items():
        if name in plan.analytic:
            terms.append(_kl_term(plan, site, model_sites[name]))
            scores[name] = _rows(plan, _score_parts(plan, site)[1])
        else:
            log_q, score, entropy = _score_parts(plan, site)
            _check_shape(plan, site, log_q)
            scores[name] = _rows(plan, score)
            value, entropy = (scale_and_mask(t, site["scale"], site["mask"]) for t in (log_q, entropy))
            terms.append(Term(("q", name), plates_of(site), -_rows(plan, value), -_rows(plan, entropy)))
    observed = [s for s in model_sites.values() if s["is_observed"]]
    return Terms(plan, terms, scores, guide_sites, observed)


def _model_term(plan: Plan, site: Any) -> Term:
    if site["is_observed"] or site["name"] not in plan.sites:
        value = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    else:
        value = _log_prob(plan, site, plan.estimator(site["name"]))
    _check_shape(plan, site, value)
    value = _rows(plan, scale_and_mask(value, site["scale"], site["mask"]))
    return Term(("p", site["name"]), plates_of(site), value, value)


def _kl_term(plan: Plan, site: Any, model_site: Any) -> Term:
    kl = torch.distributions.kl_divergence(site["fn"], model_site["fn"])
    value = -_rows(plan, scale_and_mask(kl, site["scale"], site["mask"]))
    return Term(("kl", site["name"]), plates_of(site), value, value)


def _score_parts(plan: Plan, site: Any) -> tuple[Tensor, Any, Any]:
    if site["is_observed"]:  # a factor in the guide
        log_q = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
        return log_q, 0.0, log_q
    estimator = plan.estimator(site["name"])
    parts = estimator.score_parts(site["fn"], site["value"])
    return _with_branch_density(plan, site, estimator, parts.log_prob), parts.score_function, parts.entropy_term


def _log_prob(plan: Plan, site: Any, estimator: Estimator) -> Tensor:
    return _with_branch_density(plan, site, estimator, estimator.log_prob(site["fn"], site["value"]))


def _with_branch_density(plan: Plan, site: Any, estimator: Estimator, log_prob: Tensor) -> Tensor:
    """`log_prob` with the estimator's own rows under the density it asks for there (Concrete, say)."""
    rows = plan.slices.get(site["name"])
    if rows is None or type(estimator).branch_log_prob is Estimator.branch_log_prob:
        return log_prob
    own = estimator.branch_log_prob(narrow(site["fn"], rows), site["value"][rows])
    return log_prob if own is None else torch.cat([log_prob[: rows.start], own, log_prob[rows.stop :]])


def _check_shape(plan: Plan, site: Any, log_prob: Tensor) -> None:
    """Raise UsageError unless a log-probability is (rows, *plates), or broadcasts to it: in checked steps only.

    Pyro checks each site in the same way; a program that is right for one particle may still not be written for many.
    """
    if not is_validation_enabled() or plan.rows == 1:
        return
    reason = wrong_shape(site["name"], site, tuple(log_prob.shape), plan.rows, plan.max_plate_nesting)
    if reason:
        raise UsageError(f"{reason}: {REMEDY}")


def _rows(plan: Plan, value: Any) -> Any:
    """`value` as (rows, *plates); numbers (an absent part) stay as they are."""
    if not isinstance(value, Tensor):
        return value
    missing = plan.max_plate_nesting + 1 - value.ndim
    return value[(None,) * missing] if missing > 0 else value
