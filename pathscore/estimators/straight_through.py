"""Relax the sample: biased, low-variance gradients through a hard value or beside it.

Straight-through estimators keep the hard value in the forward pass and lend it the derivative of a soft one.  The
Gumbel estimator keeps the hard value too (so the reported bound is a bound, and the model is trained on real draws)
and takes the slope of the cost at a soft counterfactual row.  log p and log q are the discrete ones, extended linearly.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions.score_parts import ScoreParts
from torch import Tensor

from pathscore.estimators.base import Estimator, Site
from pathscore.estimators.families import linear_log_prob, unwrap
from pathscore.estimators.relaxation import Temperature, relaxation_of, relaxed_log_prob


def carry(hard: Tensor, soft: Tensor) -> Tensor:
    """`hard` to the bit, with the derivative of `soft`."""
    return (soft - soft.detach()) + hard


class StraightThrough(Estimator):
    """∂b/∂φ := ∂E[b]/∂φ.

    References:
        Estimating or Propagating Gradients Through Stochastic Neurons. Bengio, Léonard, Courville, 2013.
    """

    name = "st"
    formula = "f′(b) · ∂E[b]/∂φ"
    reference = "Bengio, Léonard & Courville 2013"
    families = ("bernoulli", "onehot")
    unbiased = False
    differentiable_cost = True
    relaxed = True

    def sample(self, fn: Any) -> tuple[Tensor, Any]:
        with torch.no_grad():
            hard = fn.sample()
        return carry(hard, self.soft(fn, hard)), None

    def soft(self, fn: Any, hard: Tensor) -> Tensor:
        """The differentiable stand-in whose derivative the hard value is lent."""
        return relaxation_of(fn).mean(unwrap(fn).logits)

    def score_parts(self, fn: Any, value: Tensor) -> ScoreParts:
        log_q = linear_log_prob(fn, value)
        direct = linear_log_prob(fn, value.detach())  # its mean gradient is zero: keep the path only
        # Pyro accepts 0.0 for an absent part, but types it as a tensor.
        return ScoreParts(log_q, 0.0, log_q - (direct - direct.detach()))  # type: ignore[arg-type]

    def surrogate(self, site: Site) -> Tensor:
        return torch.zeros_like(site.cost[0])  # the value carries all of the gradient


class StraightThroughGumbel(StraightThrough):
    """The hard draw is H(z); its derivative is that of the soft draw σ(z/τ) from the same noise.

    References:
        Categorical Reparameterization with Gumbel-Softmax. Jang, Gu, Poole, 2017.
    """

    name = "st-gumbel"
    formula = "f′(b) · ∂σ((φ + ε)/τ)/∂φ"
    reference = "Jang, Gu & Poole 2017"

    def __init__(self, temperature: float = 1.0, minimum: float = 0.1, rate: float = 0.0) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, minimum, rate)

    def sample(self, fn: Any) -> tuple[Tensor, Any]:
        relax, logits = relaxation_of(fn), unwrap(fn).logits
        z = logits + relax.noise(logits)
        return carry(relax.harden(z.detach()), relax.soften(z, self.temperature())), None

    def observe(self, site: Site) -> None:
        self.temperature.advance()


class ReinMax(StraightThrough):
    """Second-order straight-through (Heun's method): derivative of 2π₁ − ½π₀, π₁ = softmax of the logits of ½(b + π_τ).

    References:
        Bridging Discrete and Backpropagation: Straight-Through and Beyond. Liu, Dong, Liu, Yu, Gao, 2023.
    """

    name = "reinmax"
    formula = "f′(b) · ∂(2π₁ − ½π₀)/∂φ, π₁ = ½(b + π_τ)"
    reference = "Liu, Dong, Liu, Yu & Gao 2023"

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def soft(self, fn: Any, hard: Tensor) -> Tensor:
        relax, logits = relaxation_of(fn), unwrap(fn).logits
        temperature = torch.as_tensor(self.temperature, dtype=logits.dtype, device=logits.device)
        middle = (hard + relax.soften(logits.detach(), temperature)) / 2
        inverse = _inverse_mean(middle, binary=relax.mean is torch.sigmoid)
        # Same value as `middle`, differentiated as if the logits had been its own.
        middle = relax.mean(inverse + (logits - logits.detach()))
        return 2 * middle - relax.mean(logits) / 2


def _inverse_mean(probs: Tensor, binary: bool) -> Tensor:
    eps = torch.finfo(probs.dtype).tiny
    log = probs.clamp(min=eps).log()
    return log - (1 - probs).clamp(min=eps).log() if binary else log


class Gumbel(Estimator):
    """Slope of the cost at the soft draw: f′(ζ) ∂ζ/∂φ, ζ = σ((φ + ε)/τ), coupled to the hard draw by ε.

    `kl="discrete"` scores ζ under the discrete log p and log q extended linearly; `kl="relaxed"` under Concrete
    densities of the same temperature (the objective of Maddison et al.).

    References:
        The Concrete Distribution. Maddison, Mnih, Teh, 2017.
        Categorical Reparameterization with Gumbel-Softmax. Jang, Gu, Poole, 2017.
    """

    name = "gumbel"
    formula = "f′(ζ) · ∂ζ/∂φ, ζ = σ((φ + ε)/τ)"
    reference = "Maddison, Mnih & Teh 2017; Jang, Gu & Poole 2017"
    families = ("bernoulli", "onehot")
    unbiased = False
    differentiable_cost = True
    relaxed = True
    needs_slope = True

    def __init__(self, temperature: float = 0.5, minimum: float = 0.1, rate: float = 0.0, kl: str = "discrete") -> None:
        super().__init__()
        if kl not in ("discrete", "relaxed"):
            raise ValueError(f"kl of gumbel must be discrete or relaxed, got '{kl}'")
        self.temperature = Temperature(temperature, minimum, rate)
        self.kl = kl

    def rows(self, fn: Any) -> int:
        return 1

    def sample(self, fn: Any) -> tuple[Tensor, Any]:
        relax, logits = relaxation_of(fn), unwrap(fn).logits.detach()
        noise = relax.noise(logits)
        return relax.harden(logits + noise), noise

    def branch(self, fn: Any, value: Tensor, noise: Any) -> Tensor:
        return relaxation_of(fn).soften(unwrap(fn).logits + noise, self.temperature())[None]

    def branch_log_prob(self, fn: Any, value: Tensor) -> Tensor | None:
        return relaxed_log_prob(fn, value, self.temperature()) if self.kl == "relaxed" else None

    def surrogate(self, site: Site) -> Tensor:
        assert site.slope is not None and site.branch is not None
        return site.over_event(site.slope[0] * site.branch[0])

    def observe(self, site: Site) -> None:
        self.temperature.advance()
