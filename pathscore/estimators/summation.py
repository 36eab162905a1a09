"""Sum it out: exact sums over a site's values, whole (`enum`) or one variable at a time (`local`).

The other sites of the program stay sampled; only this site's own randomness is removed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pathscore.estimators.base import Estimator, Site
from pathscore.estimators.families import family_name, joint_support, support_size, unwrap

MAX_ROWS = 1024


class Enumerate(Estimator):
    """∇ Σ_b q(b) f(b): the exact sum over the site's joint support, which also enters the bound.

    Needs one row per joint value: at most 1 024.
    """

    name = "enum"
    formula = "Σ_b f(b) ∇q(b)"
    reference = "sum over the support"
    families = ("bernoulli", "onehot", "categorical", "binomial")
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

    Needs one row per bit, or per variable and class: at most 1 024.

    References:
        Local Expectation Gradients for Black Box Variational Inference. Titsias, Lázaro-Gredilla, 2015.
    """

    name = "local"
    formula = "Σ_d Σ_m f(b_d = m, b_−d) ∇q(b_d = m)"
    reference = "Titsias & Lázaro-Gredilla 2015"
    families = ("bernoulli", "onehot")
    one_at_a_time = True

    def refusal(self, fn: Any, particles: int = 1) -> str | None:
        reason = super().refusal(fn, particles)
        if reason is None and self.rows(fn) > MAX_ROWS:
            return f"{self.name} needs at most {MAX_ROWS} rows, this site takes {self.rows(fn)}: use disarm"
        return reason

    def rows(self, fn: Any) -> int:
        return int(fn.event_shape.numel())

    def branch(self, fn: Any, value: Tensor, noise: Any) -> Tensor:
        one_at_a_time = torch.eye(self.rows(fn), dtype=value.dtype, device=value.device)
        one_at_a_time = one_at_a_time.reshape(-1, *[1] * (value.ndim - len(fn.event_shape)), *fn.event_shape)
        if family_name(fn) == "bernoulli":
            return value + one_at_a_time * (1 - 2 * value)  # flip bit d
        touched = one_at_a_time.sum(-1, keepdim=True)  # the variable whose class is set
        return value * (1 - touched) + one_at_a_time

    def surrogate(self, site: Site) -> Tensor:
        costs = site.cost[1:].movedim(0, -1).reshape(*site.cost.shape[1:], *site.fn.event_shape)
        inner = unwrap(site.fn)
        if family_name(site.fn) == "bernoulli":
            # f(1) − f(0), one of which is the drawn value's own cost
            costs = (costs - site.per_element(site.cost[0])) * (1 - 2 * site.value)
        return site.over_event(costs * inner.probs)
