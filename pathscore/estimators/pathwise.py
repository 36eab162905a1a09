"""Differentiate the path: z = g(ε; φ), so ∇E_q[f(z)] = E_ε[∇f(g(ε; φ))].

The value itself carries the gradient.  Distributions whose reparameterisation is implicit (Gamma, Beta, Dirichlet) or
partial (acceptance–rejection samplers) bring their own `score_parts`: the part the path misses is weighted by the
cost, as in Pyro.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions.score_parts import ScoreParts
from pyro.distributions.util import is_identically_zero
from torch import Tensor

from pathscore.estimators.base import Estimator, Site
from pathscore.estimators.families import family_name
from pathscore.programs.laws import is_straight_through, log_prob


class Pathwise(Estimator):
    """Reparameterisation: the gradient flows through z = g(ε; φ).

    References:
        Auto-Encoding Variational Bayes. Kingma, Welling, 2014.
        Implicit Reparameterization Gradients. Figurnov, Mohamed, Mnih, 2018.
        Reparameterization Gradients through Acceptance-Rejection Sampling Algorithms. Naesseth et al., 2017.
    """

    name = "pathwise"
    formula = "∇f(g(ε; φ)), z = g(ε; φ)"
    reference = "Kingma & Welling 2014"
    differentiable_cost = True
    pathwise = True
    scores = False

    def refusal(self, fn: Any, particles: int = 1) -> str | None:
        if not getattr(fn, "has_rsample", False) or is_straight_through(fn):
            return f"{self.name} needs a reparameterised site, and {family_name(fn)} is not"
        return super().refusal(fn, particles)

    def sample(self, fn: Any) -> tuple[Tensor, Any]:
        return fn.rsample(), None

    def score_parts(self, fn: Any, value: Tensor) -> ScoreParts:
        return fn.score_parts(value)

    def surrogate(self, site: Site) -> Tensor:
        if is_identically_zero(site.log_q):  # fully reparameterised
            return torch.zeros_like(site.cost[0])
        return site.cost[0] * site.log_q


class StickingTheLanding(Pathwise):
    """Pathwise with the score of q left out of the −log q term: zero variance where q is the posterior.

    ∇f = ∇_z[log p(x, z) − log q_φ(z)] ∂z/∂φ; the omitted ∇_φ log q_φ(z) has mean zero.

    References:
        Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference.
        Roeder, Wu, Duvenaud, 2017.
    """

    name = "stl"
    scores = True
    formula = "∇_z[log p(x,z) − log q(z)] · ∂z/∂φ"
    reference = "Roeder, Wu & Duvenaud 2017"

    def score_parts(self, fn: Any, value: Tensor) -> ScoreParts:
        log_q, score, entropy = fn.score_parts(value)
        # q's parameters enter log q twice, through z and directly; taking the direct part off leaves the path.
        direct = log_prob(fn, value.detach())
        return ScoreParts(log_q, score, entropy - (direct - direct.detach()))
