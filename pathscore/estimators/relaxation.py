"""Relaxations of discrete draws: z = logits + noise, hard value H(z), soft value σ(z/τ) or softmax(z/τ), and z | H(z).

One `Relaxation` per family, found by `relaxation_of(fn)`.  Noise is logistic for Bernoulli and Gumbel for one-hot
categoricals; all functions are elementwise over leading dimensions and stable for |logits| up to 1e4.

References:
    The Concrete Distribution. Maddison, Mnih, Teh, 2017.  Categorical Reparameterization with Gumbel-Softmax. Jang,
    Gu, Poole, 2017.  REBAR (the conditional z | b). Tucker, Mnih, Maddison, Lawson, Sohl-Dickstein, 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical
from torch.nn.functional import softplus

from pathscore.estimators.families import family_name, one_hot_like, sum_right, unwrap


def uniform(like: Tensor) -> Tensor:
    """Uniform draws strictly inside (0, 1)."""
    eps = torch.finfo(like.dtype).eps
    return torch.rand_like(like.detach()).clamp(eps, 1 - eps)


def _logit(u: Tensor) -> Tensor:
    return u.log() - (-u).log1p()


def _gumbel(u: Tensor) -> Tensor:
    return -(-u.log()).log()


def _conditional_bernoulli(logits: Tensor, hard: Tensor, v: Tensor) -> Tensor:
    # z | b = 1 is log(v / ((1 − v)(1 − θ)) + 1), and its mirror image for b = 0.
    noise = _logit(v)
    return hard * softplus(noise + softplus(logits)) - (1 - hard) * softplus(noise + softplus(-logits))


def _conditional_categorical(logits: Tensor, hard: Tensor, v: Tensor) -> Tensor:
    # Normalised logits: the largest z is a standard Gumbel, the others are Gumbels truncated below it.
    weights = (-v.log()).log()  # log of an exponential
    top = (weights * hard).sum(-1, keepdim=True)
    return hard * -top - (1 - hard) * torch.logaddexp(weights - logits, top)


@dataclass(frozen=True)
class Relaxation:
    """How a family is relaxed; `density(temperature, logits, soft)` is the Concrete log-density up to the Jacobian."""

    noise: Callable[[Tensor], Tensor]
    harden: Callable[[Tensor], Tensor]
    soften: Callable[[Tensor, Tensor], Tensor]
    conditional: Callable[[Tensor, Tensor, Tensor], Tensor]
    mean: Callable[[Tensor], Tensor]
    density: Callable[[Tensor, Tensor, Tensor], Tensor]


def _inside(soft: Tensor) -> Tensor:
    eps = torch.finfo(soft.dtype).eps
    return soft.clamp(eps, 1 - eps)


RELAXATIONS = {
    "bernoulli": Relaxation(
        noise=lambda like: _logit(uniform(like)),
        harden=lambda z: (z > 0).to(z.dtype),
        soften=lambda z, t: torch.sigmoid(z / t),
        conditional=_conditional_bernoulli,
        mean=torch.sigmoid,
        density=lambda t, logits, soft: LogitRelaxedBernoulli(t, logits=logits, validate_args=False).log_prob(
            _logit(_inside(soft))
        ),
    ),
    "onehot": Relaxation(
        noise=lambda like: _gumbel(uniform(like)),
        harden=lambda z: one_hot_like(z.argmax(-1), z),
        soften=lambda z, t: torch.softmax(z / t, -1),
        conditional=_conditional_categorical,
        mean=lambda logits: torch.softmax(logits, -1),
        density=lambda t, logits, soft: ExpRelaxedCategorical(t, logits=logits, validate_args=False).log_prob(
            _inside(soft).log()
        ),
    ),
}


def relaxation_of(fn: Any) -> Relaxation:
    """The relaxation of `fn`'s family."""
    return RELAXATIONS[family_name(fn)]


def relaxed_log_prob(fn: Any, soft: Tensor, temperature: Tensor) -> Tensor:
    """Concrete log-density of a soft value, summed over the event: (…, *plates)."""
    inner = unwrap(fn)
    log_prob = relaxation_of(fn).density(temperature, inner.logits, soft)
    return sum_right(log_prob, len(fn.event_shape) - len(inner.event_shape))


class Temperature(nn.Module):
    """τ_t = max(minimum, start · exp(−rate · t)), t the number of steps taken.

    References:
        Categorical Reparameterization with Gumbel-Softmax (its annealing schedule). Jang, Gu, Poole, 2017.
    """

    steps: Tensor

    def __init__(self, start: float = 1.0, minimum: float = 0.1, rate: float = 0.0) -> None:
        super().__init__()
        if not minimum > 0 or not start > 0:
            raise ValueError(f"temperature must be positive, got start {start} and minimum {minimum}")
        self.start, self.minimum, self.rate = start, min(minimum, start), rate
        self.register_buffer("steps", torch.zeros(()))

    def forward(self) -> Tensor:
        return (self.start * torch.exp(-self.rate * self.steps)).clamp(min=self.minimum)

    def advance(self) -> None:
        """One step further along the schedule."""
        self.steps.add_(1)
