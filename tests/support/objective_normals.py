"""Cases with Normal sites: Gauss–Hermite nodes stand in for their draws, and move with the parameters.

With 12 nodes for one Normal and 7 each for two, value and gradient of the K-sample bound agree with finer rules to
a fraction of what 40 000 replicates can see (`test_the_reference_has_converged`).
"""

import math
from typing import ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from objective_cases import BITS, Case, bernoulli, grid, normal
from objective_reference import F64, Joint
from torch import Tensor

from pathscore.elbos import kl_weighted


def hermite(nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights for the standard Normal, (nodes,) each."""
    t, w = np.polynomial.hermite_e.hermegauss(nodes)
    return torch.tensor(t, dtype=F64), torch.tensor(w / math.sqrt(2 * math.pi), dtype=F64)


class Line(Case):
    """z Normal, x | z Normal: linear-Gaussian."""

    nodes = 12

    values: ClassVar = {"m": 0.2, "s": -0.3, "w": 0.9, "v": -0.1}
    x = 0.8

    def guide(self):
        with self.plate():
            pyro.sample("z", dist.Normal(self.m, self.s.exp()))

    def model(self):
        with self.plate():
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            pyro.sample("x", dist.Normal(self.w * z + self.v, 0.7), obs=self.data)

    def joint(self, p, held: bool = False) -> Joint:
        t, chance = hermite(self.nodes)
        z = p["m"] + p["s"].exp() * t
        z = z.detach() if held else z
        log_p = normal(torch.zeros((), dtype=F64), 1.0, z) + normal(p["w"] * z + p["v"], 0.7, self.data)
        return Joint(chance, log_p, normal(p["m"], p["s"].exp(), z))


class WeightedLine(Line):
    """`Line` with a weight of 0.6 on its latent term."""

    def __init__(self, copies: int = 1, values: dict | None = None):
        super().__init__(copies, values)
        self.model, self.guide = kl_weighted(self.model, 0.6), kl_weighted(self.guide, 0.6)

    def joint(self, p, held: bool = False) -> Joint:
        joint = super().joint(p, held)
        z = p["m"] + p["s"].exp() * hermite(self.nodes)[0]
        return Joint(joint.chance, joint.log_p, joint.log_q, normal(torch.zeros((), dtype=F64), 1.0, z), 0.6)


class Chain(Case):
    """z1 Normal, z2 Normal given z1; the model draws z2 first: a hierarchical guide."""

    values: ClassVar = {"m1": 0.2, "s1": -0.4, "m2": -0.1, "h": 0.8, "s2": -0.3, "u": 0.7, "w": 0.9}
    x = 0.8
    nodes = 7

    def guide(self):
        with self.plate():
            z1 = pyro.sample("z1", dist.Normal(self.m1, self.s1.exp()))
            pyro.sample("z2", dist.Normal(self.m2 + self.h * z1, self.s2.exp()))

    def model(self):
        with self.plate():
            z2 = pyro.sample("z2", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            z1 = pyro.sample("z1", dist.Normal(self.u * z2, 0.9))
            pyro.sample("x", dist.Normal(self.w * z1, 0.8), obs=self.data)

    def joint(self, p) -> Joint:
        t, weight = hermite(self.nodes)
        (t1, t2), (c1, c2) = grid(t, t), grid(weight, weight)
        z1 = p["m1"] + p["s1"].exp() * t1
        loc = p["m2"] + p["h"] * z1
        z2 = loc + p["s2"].exp() * t2
        log_q = normal(p["m1"], p["s1"].exp(), z1) + normal(loc, p["s2"].exp(), z2)
        log_p = normal(torch.zeros((), dtype=F64), 1.0, z2) + normal(p["u"] * z2, 0.9, z1)
        return Joint(c1 * c2, log_p + normal(p["w"] * z1, 0.8, self.data), log_q)


class Mixed(Case):
    """n Normal, then a bit given n, then y Normal given the bit."""

    values: ClassVar = {"m": 0.2, "s": -0.6, "a": 0.1, "h": 0.8, "g": 0.6, "r": -0.2, "c": 0.3, "w": 1.0}
    x = 0.4
    nodes = 7

    def guide(self):
        with self.plate():
            n = pyro.sample("n", dist.Normal(self.m, self.s.exp()))
            b = pyro.sample("b", dist.Bernoulli(logits=self.a + self.h * n))
            pyro.sample("y", dist.Normal(self.g * b + self.r * n, 0.6))

    def model(self):
        with self.plate():
            n = pyro.sample("n", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            b = pyro.sample("b", dist.Bernoulli(logits=self.c))
            y = pyro.sample("y", dist.Normal(0.3 * n, 1.0))
            pyro.sample("x", dist.Normal(self.w * b + n - y, 0.8), obs=self.data)

    def joint(self, p) -> Joint:
        t, weight = hermite(self.nodes)
        (t1, b, t2), (c1, _, c2) = grid(t, BITS, t), grid(weight, BITS, weight)
        n = p["m"] + p["s"].exp() * t1
        y = p["g"] * b + p["r"] * n + 0.6 * t2
        of_b = bernoulli(p["a"] + p["h"] * n, b)
        log_q = normal(p["m"], p["s"].exp(), n) + of_b + normal(p["g"] * b + p["r"] * n, 0.6, y)
        prior = normal(torch.zeros((), dtype=F64), 1.0, n) + bernoulli(p["c"], b) + normal(0.3 * n, 1.0, y)
        log_p = prior + normal(p["w"] * b + n - y, 0.8, self.data)
        return Joint(c1 * c2 * of_b.exp(), log_p, log_q, log_prior=prior)
