"""Bayesian logistic regression, as a Pyro program, and its exact figures under a Normal guide.

    model(x, y):  w ~ N(0, s² I),   y_n ~ Bernoulli(σ(w · [x_n, 1])),   x (B, D), y (B,) of zeros and ones

The weights w (D + 1), the last one of them the bias, belong to the whole data set: N rows, of which a call sees B as a
subsample. A cost depends on a row by one number, η_n = w · [x_n, 1], and under a Normal guide η_n is Normal. Every
expectation is therefore an integral over one dimension, however many weights there are.

References:
    Bayesian parameter estimation via variational methods. T. S. Jaakkola, M. I. Jordan, 2000.
    Monte Carlo gradient estimation in machine learning. S. Mohamed, M. Rosca, M. Figurnov, A. Mnih, 2020 (section 8).
"""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDEST, STEP = 12.0, 0.02
"""Ends and distance of the points of an integral, in standard deviations of η. An equally spaced sum over a function
without poles nearer than π to the real line is wrong by e^(−2π² / (s · STEP)) or less, s the deviation of η."""


class LogisticRegression(nn.Module):
    """The program for a data set of `rows` rows. prior_scale: s, the standard deviation of a weight before the data."""

    def __init__(self, rows: int, prior_scale: float = 1.0):
        super().__init__()
        self.rows, self.prior_scale = rows, prior_scale

    def forward(self, x: Tensor, y: Tensor) -> None:
        prior = dist.Normal(x.new_zeros(x.shape[-1] + 1), self.prior_scale).to_event(1)
        w = pyro.sample("w", prior)  # (D + 1,), or (…, 1, D + 1) with particles in front of the plate
        with pyro.plate("data", max(self.rows, len(x)), subsample_size=len(x), dim=-1):
            pyro.sample("y", dist.Bernoulli(logits=logits(w, x)), obs=y.to(x.dtype))


def with_bias(x: Tensor) -> Tensor:
    """[x, 1]: (B, D) -> (B, D + 1)."""
    return torch.cat([x, x.new_ones(len(x), 1)], -1)


def logits(w: Tensor, x: Tensor) -> Tensor:
    """η_n = w · [x_n, 1]: w (…, 1, D + 1) or (D + 1,) and x (B, D) -> (…, B)."""
    eta = w @ with_bias(x).T
    return eta if w.dim() == 1 else eta.squeeze(-2)


def spread(q: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of η_n under a Normal q(w), of diagonal or full covariance: (B,) each."""
    rows = with_bias(x)
    root = q.scale_tril if isinstance(q, torch.distributions.MultivariateNormal) else q.stddev.diag_embed()
    return rows @ q.mean, (rows @ root).square().sum(-1).sqrt()


def nodes(like: Tensor) -> tuple[Tensor, Tensor]:
    """Points ε and weights that integrate over N(0, 1): (P,) each."""
    eps = torch.arange(-WIDEST, WIDEST + STEP / 2, STEP, dtype=like.dtype, device=like.device)
    return eps, (-0.5 * eps.square()).exp() * (STEP / math.sqrt(2 * math.pi))


def exact_bound(q: Any, x: Tensor, y: Tensor, prior_scale: float = 1.0) -> Tensor:
    """The ELBO of a Normal q(w) in nats, for the data set (x, y); its gradient by q's parameters is exact too.

    Σ_n E_q log p(y_n | w) − KL(q ‖ N(0, s² I)). Use float64.
    """
    return expected_log_likelihood(q, x, y).sum() - divergence(q, prior_scale)


def expected_log_likelihood(q: Any, x: Tensor, y: Tensor) -> Tensor:
    """∫ log p(y_n | η) N(η; m_n, s_n²) dη of each row in nats, (B,), under a Normal q(w). Use float64."""
    mean, deviation = spread(q, x)
    eps, weight = nodes(x)
    sign = (2 * y - 1).to(x.dtype)
    return F.logsigmoid(sign[:, None] * (mean[:, None] + deviation[:, None] * eps)) @ weight


def divergence(q: Any, prior_scale: float) -> Tensor:
    """KL(q ‖ N(0, s² I)) of a Normal q(w) in nats."""
    second = (q.mean.square() + q.variance).sum() / prior_scale**2
    size = q.mean.numel()
    return 0.5 * second + 0.5 * size * math.log(2 * math.pi * prior_scale**2) - q.entropy()


def predictive(q: Any, x: Tensor) -> Tensor:
    """P(y_n = 1) = ∫ σ(η) N(η; m_n, s_n²) dη under a Normal q(w): (B,). Use float64."""
    mean, deviation = spread(q, x)
    eps, weight = nodes(x)
    return torch.sigmoid(mean[:, None] + deviation[:, None] * eps) @ weight
