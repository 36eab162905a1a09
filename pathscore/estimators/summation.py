"""Sum it out: exact sums over a site's values, whole (`enum`) or one variable at a time (`local`).

The other sites of the program stay sampled; only this site's own randomness is removed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pathscore.estimators.base import Estimator, Site
from pathscore.estimators.families import (
    atoms,
    element_shape,
    family_name,
    joint_support,
    sum_right,
    support_size,
    unwrap,
)

MAX_ROWS = 1024
SUMMED = ("bernoulli", "onehot", "categorical", "binomial", "betabinomial", "multinomial", "enumerable")
"""Families whose variables have finitely many values."""


class Enumerate(Estimator):
    """∇ Σ_b q(b) f(b): the exact sum over the site's joint support, which also enters the bound.

    Needs one row per joint value: at most 1 024.
    """

    name = "enum"
    formula = "Σ_b f(b) ∇q(b)"
    reference = "sum over the support"
    families = SUMMED
    one_at_a_time = True

    def refusal(self, fn: Any, particles: int = 1) -> str | None:
        reason = super().refusal(fn, particles)
        if reason is None and support_size(fn) > MAX_ROWS:
            return f"{self.name} needs at most {MAX_ROWS} joint values, this site has {support_size(fn):.3g}: use local"
        return reason

    def rows(self, fn: Any) -> int:
        return int(support_size(fn))

    def branch(self, fn: Any, value: Tensor, noise: Any) -> Tensor:
        values = joint_support(fn)
        padding = [1] * (value.ndim - len(fn.event_shape))
        return values.reshape(len(values), *padding, *fn.event_shape).expand(len(values), *value.shape)

    def probabilities(self, site: Site) -> Tensor:
        """q(b) of every joint value, (R, K, *plates)."""
        return site.fn.log_prob(site.branch).exp()

    def weights(self, site: Site) -> Tensor:
        return torch.cat([torch.zeros_like(site.cost[:1]), self.probabilities(site).detach()])

    def surrogate(self, site: Site) -> Tensor:
        return (self.probabilities(site) * site.cost[1:]).sum(0)


class LocalExpectation(Estimator):
    """Σ_d Σ_m f(b_d = m, b_−d) ∇q(b_d = m): each variable summed out given the drawn values of the others.

    Needs one row per bit, or per variable and value: at most 1 024.

    References:
        Local Expectation Gradients for Black Box Variational Inference. Titsias, Lázaro-Gredilla, 2015.
    """

    name = "local"
    formula = "Σ_d Σ_m f(b_d = m, b_−d) ∇q(b_d = m)"
    reference = "Titsias & Lázaro-Gredilla 2015"
    families = SUMMED
    one_at_a_time = True

    def refusal(self, fn: Any, particles: int = 1) -> str | None:
        reason = super().refusal(fn, particles)
        if reason is None and support_size(fn) == float("inf"):
            return f"{self.name} needs variables with the same few values each, and this site has none: use score"
        if reason is None and self.rows(fn) > MAX_ROWS:
            return f"{self.name} needs at most {MAX_ROWS} rows, this site takes {self.rows(fn)}: use disarm"
        return reason

    def rows(self, fn: Any) -> int:
        variables = int(element_shape(fn).numel())
        return variables if family_name(fn) == "bernoulli" else variables * len(atoms(fn))

    def branch(self, fn: Any, value: Tensor, noise: Any) -> Tensor:
        if family_name(fn) == "bernoulli":
            return value + self._one(fn, value) * (1 - 2 * value)  # flip bit d
        values = atoms(fn)
        values = values.reshape(len(values), *[1] * (value.ndim - (values.ndim - 1)), *values.shape[1:])  # (M, …)
        touched = self._one(fn, value).bool()[:, None]  # (D, 1, …): the variable whose value is set
        return torch.where(touched, values, value).reshape(-1, *value.shape)

    def _one(self, fn: Any, value: Tensor) -> Tensor:
        """One variable in each of D rows: (D, 1, …, 1, *event), over the whole event of the variable."""
        variables = element_shape(fn)
        one = torch.eye(variables.numel(), dtype=value.dtype, device=value.device)
        inner = fn.event_shape[len(variables) :]
        return one.reshape(-1, *[1] * (value.ndim - len(fn.event_shape)), *variables, *[1] * len(inner))

    def surrogate(self, site: Site) -> Tensor:
        variables, inner = element_shape(site.fn), unwrap(site.fn)
        costs = site.cost[1:].movedim(0, -1)
        if family_name(site.fn) == "bernoulli":
            # f(1) − f(0), one of which is the drawn value's own cost
            costs = costs.reshape(*site.cost.shape[1:], *variables)
            costs = (costs - site.per_element(site.cost[0])) * (1 - 2 * site.value)
            return site.over_event(costs * inner.probs)
        values = atoms(site.fn)
        costs = costs.reshape(*site.cost.shape[1:], *variables, len(values))
        # The values in front of all batch dimensions, then last: (K, *plates, *variables, M).
        placed = values.reshape(len(values), *[1] * len(inner.batch_shape), *values.shape[1:])
        chances = inner.log_prob(placed).exp().movedim(0, -1)
        return sum_right(costs * chances, len(variables) + 1)
