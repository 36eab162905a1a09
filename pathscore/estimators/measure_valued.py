"""Measure-valued derivatives: ∇_θ E_q[f] = c (E_{q⁺}[f] − E_{q⁻}[f]), one coordinate and one parameter at a time.

q⁺ and q⁻ are the normalised positive and negative parts of ∂q/∂θ.  A `Derivative` names the parameter, the constant
c and how to draw a coupled pair; an estimate takes 2 rows per coordinate and parameter (4D for a Normal).

References:
    Monte Carlo Gradient Estimation in Machine Learning. Mohamed, Rosca, Figurnov, Mnih, 2020.
    A Measure-Valued Gradient for Bayesian networks: Measure-valued differentiation for Markov chains.
    Heidergott, Vázquez-Abad, 2008.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pathscore.estimators.base import Estimator, Site
from pathscore.estimators.families import element_shape, family_name, unwrap
from pathscore.estimators.relaxation import uniform


@dataclass(frozen=True)
class Derivative:
    """One parameter's weak derivative: `pair(fn, value)` draws (x⁺, x⁻) coupled, `constant(fn)` is c."""

    parameter: str
    constant: Callable[[Any], Tensor]
    pair: Callable[[Any, Tensor], tuple[Tensor, Tensor]]


def _rayleigh(like: Tensor) -> Tensor:
    return (-2 * uniform(like).log()).sqrt()


def _normal_loc(fn: Any, value: Tensor) -> tuple[Tensor, Tensor]:
    step = fn.scale * _rayleigh(value)
    return fn.loc + step, fn.loc - step


def _normal_scale(fn: Any, value: Tensor) -> tuple[Tensor, Tensor]:
    # Double-sided Maxwell; times an independent uniform it is standard Normal, which couples the two.
    maxwell = (_rayleigh(value).square() + torch.randn_like(value).square()).sqrt()
    maxwell = torch.where(torch.rand_like(value) < 0.5, maxwell, -maxwell)
    return fn.loc + fn.scale * maxwell, fn.loc + fn.scale * maxwell * uniform(value)


def _one_trial_more(fn: Any, value: Tensor) -> tuple[Tensor, Tensor]:
    # A Binomial(n, p) draw less one of its n trials, taken at random, is Binomial(n − 1, p).
    fewer = value - (torch.rand_like(value) * fn.total_count < value).to(value)
    return torch.minimum(fewer + 1, fn.total_count.to(value)), fewer  # n = 0 has no trial to add, and constant 0


def _one_failure_more(stop: Tensor, value: Tensor) -> Tensor:
    # A negative binomial with one more stopping event, plus one: the draw, a geometric one, and 1.
    return value + 1 + torch.distributions.Geometric(stop, validate_args=False).sample()


DERIVATIVES: dict[str, tuple[Derivative, ...]] = {
    "normal": (
        Derivative("loc", lambda fn: 1 / (fn.scale * math.sqrt(2 * math.pi)), _normal_loc),
        Derivative("scale", lambda fn: 1 / fn.scale, _normal_scale),
    ),
    "bernoulli": (
        Derivative(
            "probs", lambda fn: torch.ones_like(fn.probs), lambda fn, x: (torch.ones_like(x), torch.zeros_like(x))
        ),
    ),
    "binomial": (Derivative("probs", lambda fn: fn.total_count, _one_trial_more),),
    "geometric": (Derivative("probs", lambda fn: 1 / fn.probs, lambda fn, x: (x, _one_failure_more(fn.probs, x))),),
    "negativebinomial": (
        Derivative(
            "probs",
            lambda fn: fn.total_count / (1 - fn.probs),
            lambda fn, x: (_one_failure_more(1 - fn.probs, x), x),
        ),
    ),
    "poisson": (Derivative("rate", lambda fn: torch.ones_like(fn.rate), lambda fn, x: (x + 1, x)),),
    "gamma": (
        Derivative(
            "rate",
            lambda fn: fn.concentration / fn.rate,
            lambda fn, x: (x, x - uniform(x).log() / fn.rate),  # Gamma(α + 1) = Gamma(α) + exponential
        ),
    ),
}


SCORED: dict[str, Callable[[Any], Any]] = {
    "gamma": lambda fn: torch.distributions.Gamma(fn.concentration, fn.rate.detach(), validate_args=False),
    "negativebinomial": lambda fn: torch.distributions.NegativeBinomial(
        fn.total_count, probs=fn.probs.detach(), validate_args=False
    ),
}
"""Families with a parameter without a weak derivative in closed form; the distribution as a function of it alone."""


def _one_draw_elsewhere(fn: Any, value: Tensor) -> Tensor:
    """A multinomial draw of which one of the n, taken at random, falls into each class in turn: (C, *value)."""
    taken = torch.distributions.OneHotCategorical(probs=value, validate_args=False).sample()
    fewer = value - taken.to(value)
    to = torch.eye(value.shape[-1], dtype=value.dtype, device=value.device)
    return fewer + to.reshape(-1, *[1] * (value.ndim - 1), value.shape[-1])


class MeasureValued(Estimator):
    """c (f(x⁺) − f(x⁻)) for every coordinate of every parameter.

    A Gamma's concentration and a negative binomial's number of stopping events have no weak derivative in closed form:
    these parameters are given the score function. ∂/∂p of a Binomial(n, p) is n [f(b + 1) − f(b)], b ~ Binomial(n − 1,
    p); of a geometric, [f(b) − f(b′)] / p, b′ a negative binomial with two stopping events, plus one. ∂/∂p_c of a
    Multinomial(n, p) is n f(b + e_c), b ~ Multinomial(n − 1, p): one row for each class. f(z) is taken off, which
    changes nothing since Σ_c ∂p_c = 0.
    """

    name = "measure-valued"
    formula = "c [f(z⁺) − f(z⁻)] per coordinate and parameter"
    reference = "Mohamed, Rosca, Figurnov & Mnih 2020"
    families = (*DERIVATIVES, "multinomial")
    one_at_a_time = True

    def rows(self, fn: Any) -> int:
        if family_name(fn) == "multinomial":
            return int(fn.event_shape.numel())
        return 2 * len(DERIVATIVES[family_name(fn)]) * int(fn.event_shape.numel())

    @torch.no_grad()
    def branch(self, fn: Any, value: Tensor, noise: Any) -> Tensor:
        if family_name(fn) == "multinomial":
            return self._elsewhere(fn, value)
        event, inner = fn.event_shape, unwrap(fn)
        one = torch.eye(event.numel(), dtype=value.dtype, device=value.device)
        one = one.reshape(-1, *[1] * (value.ndim - len(event)), *event)
        rows = [
            torch.where(one > 0, member, value)  # (D, K, *plates, *event): one coordinate replaced in each
            for derivative in DERIVATIVES[family_name(fn)]
            for member in derivative.pair(inner, value)
        ]
        return torch.cat(rows)

    @staticmethod
    def _elsewhere(fn: Any, value: Tensor) -> Tensor:
        """One variable in each of the rows, and in each of its classes."""
        elements = element_shape(fn)
        if unwrap(fn).total_count == 0:
            return value.expand(int(fn.event_shape.numel()), *value.shape)
        one = torch.eye(elements.numel(), dtype=torch.bool, device=value.device)
        one = one.reshape(-1, 1, *[1] * (value.ndim - len(fn.event_shape)), *elements, 1)
        return torch.where(one, _one_draw_elsewhere(unwrap(fn), value), value).flatten(0, 1)

    def surrogate(self, site: Site) -> Tensor:
        if family_name(site.fn) == "multinomial":
            costs = (site.cost[1:] - site.cost[0]).movedim(0, -1).reshape(*site.cost.shape[1:], *site.fn.event_shape)
            return site.over_event(unwrap(site.fn).total_count * costs * unwrap(site.fn).probs)
        inner, event = unwrap(site.fn), site.fn.event_shape
        derivatives = DERIVATIVES[family_name(site.fn)]
        costs = site.cost[1:].unflatten(0, (len(derivatives), 2, event.numel()))
        total = torch.zeros_like(site.cost[0])
        for derivative, (plus, minus) in zip(derivatives, costs, strict=True):
            difference = (plus - minus).movedim(0, -1).reshape(*site.cost.shape[1:], *event)
            weight = derivative.constant(inner).detach() * difference
            total = total + site.over_event(weight * getattr(inner, derivative.parameter))
        if scored := SCORED.get(family_name(site.fn)):
            total = total + site.cost[0] * site.over_event(scored(inner).log_prob(site.value))
        return total
