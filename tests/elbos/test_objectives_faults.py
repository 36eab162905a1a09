"""Faults planted in the objectives, each of which test_objectives.agrees must catch: N = 40 000, the same pass rule.

Two refusals are lifted too, to show that what they refuse is wrong.
"""

import math

import pytest
import torch
from objective_cases import Bit, Global, Layers, Subsampled
from objective_normals import Chain, Line, Mixed, WeightedLine
from test_objectives import agrees

from pathscore.elbos import dreg
from pathscore.elbos.dreg import DReG
from pathscore.elbos.importance import ImportanceELBO
from pathscore.elbos.vimco import VIMCO
from pathscore.elbos.weights import WeightedTerms, others


def with_terms(base, **replaced):
    """`base` whose weighted terms have other properties: functions of the terms."""
    kind = type("Faulty", (WeightedTerms,), {name: property(f) for name, f in replaced.items()})

    class Faulty(base):
        def _run(self, *args):
            draws, terms = super()._run(*args)
            return draws, kind(**{**vars_of(terms), "order": self.order})

    return Faulty


def vars_of(terms):
    return {name: getattr(terms, name) for name in ("plan", "terms", "scores", "sites", "observed")}


def value_of(terms):
    """The weighted terms as the package makes them."""
    return WeightedTerms(**vars_of(terms), order=terms.order)


class WholeBatch(VIMCO):
    """One weight for the whole batch."""

    def prepare(self, *args):
        plan = super().prepare(*args)
        plan.weight_plates = frozenset()
        return plan


class OwnParticle(VIMCO):
    """The comparison includes the particle that it is for."""

    def baseline(self, terms):
        return terms.bound_of(terms.powers(terms.log_w).detach().logsumexp(0, keepdim=True))


class Averaged(VIMCO):
    """Scores averaged over particles that share one cost."""

    shared_cost = False


class OneFactor(DReG):
    """v_k where v_k² is right."""

    def beside(self, *args):
        order, self.order = self.order, 0.0
        try:
            return super().beside(*args)
        finally:
            self.order = order


class OrderOne(DReG):
    """The factor of L_K under another order."""

    def beside(self, *args):
        order, self.order = self.order, 1.0
        try:
            return super().beside(*args)
        finally:
            self.order = order


class NoLaterScores(DReG):
    """Scores of later draws left out of the slopes."""

    def beside(self, draws, terms, scores):
        return super().beside(draws, terms, scores.detach())


def permissive(base):
    """`base` that refuses nothing."""
    return type("Permissive", (base,), {"refuse": lambda self, e, site: None, "_divide": lambda self, plan: False})


def log_k_forgotten(terms):
    return value_of(terms).bounds + math.log(terms.plan.particles)


def row_alone(terms):
    true = value_of(terms)
    return torch.cat([true._totals[: true.plan.particles], true.log_w[true.plan.particles :]])


def wrong_particle(terms):
    true, K = value_of(terms), terms.plan.particles
    rows = torch.logaddexp(others(true.powers(true.log_w)).roll(1, 0), true.log_w[K:].unflatten(0, (-1, K)))
    return torch.cat([true._totals[:K], true.bound_of(rows.flatten(0, 1))])


FAULTS = {
    "one weight for the batch": (Bit, WholeBatch, {}),
    "N/B inside the weights": (Subsampled, with_terms(VIMCO, scale=lambda terms: 1.0), {}),
    "log K forgotten": (Bit, with_terms(VIMCO, bounds=log_k_forgotten), {}),
    "counterfactual row weighed alone": (Layers, with_terms(VIMCO, _totals=row_alone), {"estimators": "disarm"}),
    "counterfactual row in another's place": (
        Layers,
        with_terms(VIMCO, _totals=wrong_particle),
        {"estimators": "disarm"},
    ),
    "comparison sees its particle": (Bit, OwnParticle, {}),
    "log q in the weights left out": (Layers, with_terms(VIMCO, shares=lambda terms: 0 * value_of(terms).shares), {}),
    "log q in the weights twice": (Layers, with_terms(VIMCO, path_log_w=lambda terms: terms.log_w), {}),
    "scores averaged": (Bit, Averaged, {}),
    "v for v², sticking the landing": (Line, OneFactor, {}),
    "order ignored by dreg": (Line, OrderOne, {"alpha": 0.5}),
    "later scores left out by dreg": (Mixed, NoLaterScores, {}),
    "rloo not refused": (Bit, permissive(ImportanceELBO), {"estimators": "rloo"}),
    "enum in an inner plate not refused": (Global, permissive(VIMCO), {"estimators": "z=enum"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_is_caught(fault):
    case, kind, options = FAULTS[fault]
    alpha = options.get("alpha", 0.0)
    with pytest.raises(AssertionError):
        agrees(case, lambda num_particles: kind(num_particles=num_particles, **options), 2, alpha=alpha)


def without_later_paths(total, cut):
    slopes = {name: torch.zeros_like(value) for name, (value, _) in cut.items()}
    if total.requires_grad:
        values = [value for value, _ in cut.values()]
        slopes = dict(zip(cut, torch.autograd.grad(total, values, retain_graph=True), strict=True))
    return slopes


@pytest.mark.parametrize(
    ("case", "name", "fault"),
    [
        (Chain, "_slopes_along", without_later_paths),
        (Mixed, "_log_q", lambda terms: torch.zeros(())),
        (WeightedLine, "residual_scale", lambda site: 1.0),
    ],
    ids=["later paths left out", "weighted scores left out", "KL weight ignored"],
)
def test_is_caught_in_dreg(case, name, fault, monkeypatch):
    monkeypatch.setattr(dreg, name, fault)
    with pytest.raises(AssertionError):
        agrees(case, DReG, 2)
