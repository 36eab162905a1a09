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

from pathscore.errors import unknown
from pathscore.estimators.base import Estimator, Site
from pathscore.estimators.coupling import DRAWS, draw, has_path
from pathscore.estimators.families import family_name
from pathscore.programs.laws import is_straight_through, log_prob


class Pathwise(Estimator):
    """Reparameterisation: the gradient flows through z = g(ε; φ).

    `draws` couples the ε of the K particles, site by site; each particle keeps its distribution, so the mean over
    particles stays unbiased, for no further evaluation. "stratified": a Latin hypercube, one particle in each of K
    slices of a coordinate; "sobol": Sobol's points with a random digital shift, best for K a power of two;
    "antithetic": ε, then −ε, which helps odd functions of ε alone (it doubles the part of the gradient by a scale). It
    needs a normal site or one with a quantile function, K ≥ 2, and a bound that is a mean over particles.

    References:
        Auto-Encoding Variational Bayes. Kingma, Welling, 2014.
        Implicit Reparameterization Gradients. Figurnov, Mohamed, Mnih, 2018.
        Reparameterization Gradients through Acceptance-Rejection Sampling Algorithms. Naesseth et al., 2017.
        Quasi-Monte Carlo Variational Inference (coupled particles). Buchholz, Wenzel, Mandt, 2018.
    """

    name = "pathwise"
    formula = "∇f(g(ε; φ)), z = g(ε; φ)"
    reference = "Kingma & Welling 2014"
    differentiable_cost = True
    pathwise = True
    scores = False

    def __init__(self, draws: str = "independent") -> None:
        super().__init__()
        if draws != "independent" and draws not in DRAWS:
            raise unknown(f"draws of {self.name}", draws, ("independent", *DRAWS))
        self.draws, self.couples_particles = draws, draws != "independent"

    @property
    def word(self) -> str:
        return f"{self.name}(draws={self.draws})" if self.couples_particles else self.name

    def refusal(self, fn: Any, particles: int = 1) -> str | None:
        if not getattr(fn, "has_rsample", False) or is_straight_through(fn):
            return f"{self.name} needs a reparameterised site, and {family_name(fn)} is not"
        if self.couples_particles and particles < 2:
            return f"{self.word} needs --particles 2 or more, got {particles}"
        if self.couples_particles and not has_path(fn):
            return f"{family_name(fn)} has no quantile function for draws={self.draws}: use {self.name}"
        return super().refusal(fn, particles)

    def sample(self, fn: Any) -> tuple[Tensor, Any]:
        return draw(fn, DRAWS[self.draws], self.particles) if self.couples_particles else fn.rsample(), None

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
