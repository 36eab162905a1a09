"""The delta method: a Taylor expansion of the cost at the mean of a Normal site as control variate of the score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pathscore.estimators.base import Site
from pathscore.estimators.baselines import MovingAverage
from pathscore.estimators.families import unwrap
from pathscore.estimators.score import Score


class Quadratic(NamedTuple):
    """q(z) = g·(z − μ) + ½ (z − μ)ᵀH(z − μ) − ½ tr HΣ, whose mean under N(μ, Σ) is 0.

    value: q at the draws, (K, *plates). mean: g·μ + ½ tr HΣ with g and H held fixed, (K, *plates); its gradient is the
    gradient of E[q]. inner: ⟨∇log q_φ, ∇log q_φ⟩ and ⟨∇log q_φ, ∇mean⟩ and ⟨∇mean, ∇mean⟩ by the parameters in units of
    the scale, each (K, *plates).
    """

    value: Tensor
    mean: Tensor
    inner: tuple[Tensor, Tensor, Tensor]


class DeltaMethod(Score):
    """[f(z) − f(μ) − b − a q(z)] ∇log q_φ(z) + a (f′(μ)·∇μ + ½ tr(H ∇Σ)),  q the Taylor terms of f at μ, centred.

    f is expanded to the first order (`order=1`, H = 0) or to the second, with the Hessian H of this site's variables.
    The coefficient a minimises the variance in the standardised parameters (steps of μ in units of the scale, and of
    the scale in units of itself). It is fitted on earlier steps, and so is the moving average b, so the mean of the
    estimate stays exact. Far from the posterior, where the expansion is poor, a goes to 0 and `score` with the baseline
    f(μ) + b is left.

    Takes one counterfactual row, and `order=2` a backward pass for each variable of the site.

    Args:
        order: 1 or 2. decay: of the averages over steps. coefficient: a fixed a; None: fitted.

    References:
        Variational Bayesian Inference with Stochastic Search. Paisley, Blei, Jordan, 2012.
        Monte Carlo Gradient Estimation in Machine Learning (section 7.4). Mohamed, Rosca, Figurnov, Mnih, 2020.
    """

    name = "delta"
    formula = "[f(z) − f(μ) − b − a q(z)] ∇log q(z) + a ∇E[q], q the Taylor terms of f at μ"
    reference = "Paisley, Blei & Jordan 2012"
    families = ("normal", "multivariatenormal")
    differentiable_cost = True
    needs_slope = True
    explained: Tensor
    spread: Tensor

    def __init__(self, order: int = 2, decay: float = 0.95, coefficient: float | None = None) -> None:
        super().__init__(MovingAverage(decay))
        if order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {order}")
        self.needs_curvature = order == 2
        self.decay, self.coefficient = decay, coefficient
        self.register_buffer("explained", torch.zeros(()))
        self.register_buffer("spread", torch.zeros(()))

    def rows(self, fn: Any) -> int:
        return 1

    def branch(self, fn: Any, value: Tensor, noise: Any) -> Tensor:
        return fn.mean.detach().expand_as(value)[None]

    def surrogate(self, site: Site) -> Tensor:
        q, a = expansion(site), self.weight()
        return super().surrogate(_left(site, a * q.value)) + a * q.mean

    def observe(self, site: Site) -> None:
        q = expansion(site)
        super().observe(_left(site, self.weight() * q.value))
        with torch.no_grad():
            self._fit(site, q)

    def weight(self) -> Tensor:
        """The coefficient a: 0 before the first step."""
        if self.coefficient is not None:
            return torch.full_like(self.spread, self.coefficient)
        return torch.where(self.spread > 0, self.explained / self.spread.clamp(min=torch.finfo().tiny), 0.0)

    def _fit(self, site: Site, q: Quadratic) -> None:
        """Averages of ⟨u, v⟩ and ⟨v, v⟩ for u = (f − f(μ)) ∇log q and v = q ∇log q − ∇E[q]: a = their ratio."""
        score, cross, mean = q.inner
        cost = self.signal(_left(site, 0.0))
        explained = cost * (q.value * score - cross)
        spread = q.value.square() * score - 2 * q.value * cross + mean
        for kept, new in ((self.explained, explained), (self.spread, spread)):
            kept.lerp_(new.mean().to(kept), 1 - self.decay)


def _left(site: Site, explained: Tensor | float) -> Site:
    """The site with what the cost has left beside f(μ) and the control variate as its cost."""
    return replace(site, cost=(site.cost[0] - site.cost[1] - explained)[None])


def expansion(site: Site) -> Quadratic:
    """The Taylor terms of a Normal site's cost at the mean."""
    assert site.slope is not None
    events = len(site.fn.event_shape)
    mean = site.fn.mean.flatten(-events) if events else site.fn.mean[..., None]
    offset = site.value.reshape(mean.shape) - mean.detach()  # (K, *plates, D)
    slope = site.slope[0].reshape(mean.shape)
    hessian = site.curvature[0] if site.curvature is not None else slope.new_zeros(*slope.shape, slope.shape[-1])
    inner = unwrap(site.fn)
    if isinstance(inner, MultivariateNormal):
        return _full(offset, mean, inner.scale_tril, slope, hessian)
    return _diagonal(offset, mean, inner.scale.reshape(mean.shape), slope, hessian)


def _quadratic(offset: Tensor, slope: Tensor, hessian: Tensor, trace: Tensor) -> Tensor:
    curved = (offset * (hessian @ offset[..., None]).squeeze(-1)).sum(-1)
    return (slope * offset).sum(-1) + 0.5 * (curved - trace)


def _diagonal(offset: Tensor, mean: Tensor, scale: Tensor, slope: Tensor, hessian: Tensor) -> Quadratic:
    bend = (hessian * torch.eye(mean.shape[-1]).to(hessian)).sum(-1)  # the diagonal
    trace = (bend * scale.square()).sum(-1)
    eps, width = offset / scale.detach(), scale.detach()
    of_scale, by_loc, by_scale = eps.square() - 1, width * slope, width.square() * bend
    inner = (
        (eps.square() + of_scale.square()).sum(-1),
        (eps * by_loc + of_scale * by_scale).sum(-1),
        (by_loc.square() + by_scale.square()).sum(-1),
    )
    return Quadratic(_quadratic(offset, slope, hessian, trace.detach()), (slope * mean).sum(-1) + 0.5 * trace, inner)


def _full(offset: Tensor, mean: Tensor, tril: Tensor, slope: Tensor, hessian: Tensor) -> Quadratic:
    trace = (hessian @ tril * tril).sum((-2, -1))
    root = tril.detach()
    eps = torch.linalg.solve_triangular(root, offset[..., None], upper=False).squeeze(-1)
    of_scale = (eps[..., :, None] * eps[..., None, :] - torch.eye(eps.shape[-1]).to(eps)).tril()
    by_loc, by_scale = (root.mT @ slope[..., None]).squeeze(-1), (root.mT @ hessian @ root).tril()
    inner = (
        eps.square().sum(-1) + of_scale.square().sum((-2, -1)),
        (eps * by_loc).sum(-1) + (of_scale * by_scale).sum((-2, -1)),
        by_loc.square().sum(-1) + by_scale.square().sum((-2, -1)),
    )
    return Quadratic(_quadratic(offset, slope, hessian, trace.detach()), (slope * mean).sum(-1) + 0.5 * trace, inner)
