"""Small programs whose copies ride on a plate, and the same programs written out by hand, state by state.

A case holds parameters of model and guide as leaves of shape (N, …), all rows equal: N copies of one program in its
outermost plate, so that one backward pass gives N independent gradients.  `joint(p)` is the same program without Pyro:
every joint state of one copy as (chance under q, log p, log q), each (S,), Gauss–Hermite nodes standing in for Normals.
"""

from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from objective_reference import F64, Joint
from torch import Tensor

from pathscore.elbos import kl_weighted

BITS = torch.tensor([0.0, 1.0], dtype=F64)


def bernoulli(logits: Tensor, b: Tensor) -> Tensor:
    return torch.distributions.Bernoulli(logits=logits, validate_args=False).log_prob(b)


def normal(loc: Tensor, scale: Tensor | float, z: Tensor) -> Tensor:
    return torch.distributions.Normal(loc, scale, validate_args=False).log_prob(z)


def grid(*axes: Tensor) -> list[Tensor]:
    """All combinations, one flat tensor an axis."""
    return [m.flatten() for m in torch.meshgrid(*axes, indexing="ij")]


class Case:
    """N copies of a program: `model`, `guide`, `parameters`, and `joint` for the reference."""

    values: ClassVar[dict[str, Any]]
    x: Any
    scale = 1.0

    def __init__(self, copies: int = 1, values: dict | None = None):
        self.copies = copies
        self.values = values or self.values
        self.parameters = {n: self._leaf(v) for n, v in self.values.items()}

    def _leaf(self, value) -> Tensor:
        value = torch.tensor(value, dtype=F64)
        return value.expand(self.copies, *value.shape).clone().requires_grad_()

    def __getattr__(self, name: str) -> Tensor:
        if name in self.__class__.values:
            return self.parameters[name]
        raise AttributeError(name)

    @property
    def data(self) -> Tensor:
        return torch.tensor(self.x, dtype=F64)

    def plate(self):
        return pyro.plate("copies", self.copies, dim=-1)

    def single(self) -> dict[str, Tensor]:
        """One copy's parameters, new leaves."""
        return {n: torch.tensor(v, dtype=F64, requires_grad=True) for n, v in self.values.items()}


class Bit(Case):
    """z ~ Bernoulli, x | z Normal."""

    values: ClassVar = {"a": 0.3, "c": -0.4, "w": 1.2, "v": -0.3}
    x = 0.7

    def guide(self):
        with self.plate():
            pyro.sample("z", dist.Bernoulli(logits=self.a))

    def model(self):
        with self.plate():
            z = pyro.sample("z", dist.Bernoulli(logits=self.c))
            pyro.sample("x", dist.Normal(self.w * z + self.v, 0.6), obs=self.data)

    def joint(self, p) -> Joint:
        log_q, log_prior = bernoulli(p["a"], BITS), bernoulli(p["c"], BITS)
        log_p = log_prior + normal(p["w"] * BITS + p["v"], 0.6, self.data)
        return Joint(log_q.exp(), log_p, log_q, log_prior)


class Subsampled(Bit):
    """`Bit` in a plate of which half the members are drawn: everything twice."""

    scale = 2.0

    def plate(self):
        return pyro.plate("copies", 2 * self.copies, subsample=torch.arange(self.copies), dim=-1)


class Weighted(Bit):
    """`Bit` with a weight of 0.6 on its latent terms."""

    def __init__(self, copies: int = 1, values: dict | None = None):
        super().__init__(copies, values)
        self.model, self.guide = kl_weighted(self.model, 0.6), kl_weighted(self.guide, 0.6)

    def joint(self, p) -> Joint:
        joint = super().joint(p)
        joint.kl_weight = 0.6
        return joint


class Layers(Case):
    """z1 two bits, z2 one bit given z1; the model draws z2 first."""

    values: ClassVar = {
        "a": [0.3, -0.5],
        "b": 0.2,
        "h": [0.7, -0.9],
        "c": 0.4,
        "d": [0.8, 0.5],
        "e": [-0.3, 0.1],
        "w": [1.0, -0.7],
    }
    x = 0.5

    def guide(self):
        with self.plate():
            z1 = pyro.sample("z1", dist.Bernoulli(logits=self.a).to_event(1))
            pyro.sample("z2", dist.Bernoulli(logits=self.b + (self.h * z1).sum(-1)))

    def model(self):
        with self.plate():
            z2 = pyro.sample("z2", dist.Bernoulli(logits=self.c))
            z1 = pyro.sample("z1", dist.Bernoulli(logits=self.d * z2[..., None] + self.e).to_event(1))
            pyro.sample("x", dist.Normal((self.w * z1).sum(-1), 0.6), obs=self.data)

    def joint(self, p) -> Joint:
        u, v, z2 = grid(BITS, BITS, BITS)
        z1 = torch.stack([u, v], -1)
        log_q = bernoulli(p["a"], z1).sum(-1) + bernoulli(p["b"] + (p["h"] * z1).sum(-1), z2)
        log_p = bernoulli(p["c"], z2) + bernoulli(p["d"] * z2[:, None] + p["e"], z1).sum(-1)
        return Joint(log_q.exp(), log_p + normal((p["w"] * z1).sum(-1), 0.6, self.data), log_q)


class Global(Case):
    """A bit g, and two data with a bit each given g: one weight for all of it."""

    values: ClassVar = {"a": 0.3, "b": -0.2, "h": 0.9, "c": 0.5, "w": 1.1}
    x = (0.9, -0.2)

    def plate(self):
        return pyro.plate("copies", self.copies, dim=-2)

    def guide(self):
        with self.plate():
            g = pyro.sample("g", dist.Bernoulli(logits=self.a[:, None]))
            with pyro.plate("data", 2, dim=-1):
                pyro.sample("z", dist.Bernoulli(logits=self.b[:, None] + self.h[:, None] * g))

    def model(self):
        with self.plate():
            g = pyro.sample("g", dist.Bernoulli(logits=torch.tensor(-0.3, dtype=F64)))
            with pyro.plate("data", 2, dim=-1):
                z = pyro.sample("z", dist.Bernoulli(logits=self.c[:, None]))
                loc = self.w[:, None] * (z + g - z * g / 2)
                pyro.sample("x", dist.Normal(loc, 0.6), obs=self.data)

    def joint(self, p) -> Joint:
        g, *zs = grid(BITS, BITS, BITS)
        log_q, log_p = bernoulli(p["a"], g), bernoulli(torch.tensor(-0.3, dtype=F64), g)
        for z, x in zip(zs, self.data, strict=True):
            log_q = log_q + bernoulli(p["b"] + p["h"] * g, z)
            log_p = log_p + bernoulli(p["c"], z) + normal(p["w"] * (z + g - z * g / 2), 0.6, x)
        return Joint(log_q.exp(), log_p, log_q)
