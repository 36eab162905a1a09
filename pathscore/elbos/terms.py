"""The terms of the bound, row by row: log p and −log q of every site, scaled and masked, and sums of them.

A term's tensors are (rows, *plates) with one dimension for each of the `max_plate_nesting` plates (1 where the site is
not in it).  `credit` sums terms to a site's plates: per data point, not per batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pathscore.elbos.dependence import Depends, TermKey
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

    def cost(self, name: str, in_rows: bool = False) -> Tensor:
        """Σ of the credited terms to the site's plates, without a graph: (rows, *plates).

        in_rows: what the site costs in the counterfactual rows of another one, always credited by dependency.
        """
        depends = self.plan.row_depends if in_rows else self.plan.credit(name)
        terms = [(t, self._target(name, t)) for t in self.credited(name, depends)]
        key = frozenset((t.key, plates) for t, plates in terms)
        if key not in self._costs:
            parts = [sum_to(t.value.detach(), t.plates, plates) for t, plates in terms]
            shape = (self.plan.rows, *self.scores_shape(name)[1:])
            parts = parts or [self.terms[0].value.new_zeros(shape)]  # no term depends on the site
            self._costs[key] = torch.stack(torch.broadcast_tensors(*parts)).sum(0)
        return self._costs[key]

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
