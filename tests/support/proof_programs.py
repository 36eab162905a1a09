"""Small programs with exact gradients, whose replicates ride on a plate: what the proofs run the estimators on.

`Program(shape, family, N)` holds guide parameters as leaves of shape (N, …), all rows equal: N independent copies of
one program in the plate "replicates".  One backward pass therefore gives N independent draws of the gradient at the
site's own parameters; the exact gradient comes from `pathscore.exact` on the same program with N = 1.

Shapes: one (z) · two (z1, then z2 given z1) · mixed (Normal n0, then z given n0, then Normal n1 given z) ·
subsampled (z, its plate scaled by 2) · masked (z, half the plate masked out) · nested (discrete g outside, z given g
in an inner plate of two data points).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

WIDTH = 3  # numbers a value is turned into, and observations


@dataclass(frozen=True)
class Kind:
    """A latent family: shapes of its parameters, its distribution, and its value as WIDTH numbers."""

    parameters: dict[str, tuple[int, ...]]
    make: Callable[..., dist.Distribution]
    features: Callable[[Tensor], Tensor]
    shift: str  # the parameter that upstream values move


def _spread(z: Tensor) -> Tensor:
    return z * torch.tensor([1.0, -0.7, 0.4], dtype=z.dtype)


def _table(z: Tensor) -> Tensor:
    rows = torch.tensor([[1.0, 0.0, 0.3], [-0.5, 0.8, 0.0], [0.2, -1.0, 0.6]], dtype=torch.get_default_dtype())
    return rows[z]


KINDS = {
    "bernoulli": Kind(
        {"logits": (WIDTH,)}, lambda logits: dist.Bernoulli(logits=logits).to_event(1), lambda z: z, "logits"
    ),
    "onehot": Kind(
        {"logits": (2, 3)},
        lambda logits: dist.OneHotCategorical(logits=logits).to_event(1),
        lambda z: z[..., 0, :] - 0.6 * z[..., 1, :].flip(-1),
        "logits",
    ),
    "categorical": Kind({"logits": (3,)}, lambda logits: dist.Categorical(logits=logits), _table, "logits"),
    "normal": Kind(
        {"loc": (1,), "log_scale": (1,)},
        lambda loc, log_scale: dist.Normal(loc, log_scale.exp()).to_event(1),
        _spread,
        "loc",
    ),
    "poisson": Kind(
        {"log_rate": (1,)},
        lambda log_rate: dist.Poisson(log_rate.exp()).to_event(1),
        lambda z: _spread(z) / 2,
        "log_rate",
    ),
    "gamma": Kind(
        {"log_concentration": (1,), "log_rate": (1,)},
        lambda log_concentration, log_rate: dist.Gamma(2 * log_concentration.exp(), 2 * log_rate.exp()).to_event(1),
        _spread,
        "log_rate",
    ),
}
SHAPES = ("one", "two", "mixed", "subsampled", "masked", "nested")


class Program:
    """N copies of one small program; `parameters` are the guide's leaves, (N, …) each."""

    def __init__(self, shape: str, family: str, replicates: int = 1, seed: int = 0) -> None:
        self.shape, self.family, self.kind, self.replicates = shape, family, KINDS[family], replicates
        self.constants = torch.Generator().manual_seed(seed)
        self.mix = {name: self._normal(WIDTH, WIDTH) * 0.6 for name in ("x", "between", "down")}
        self.x = self._normal(WIDTH)
        self.prior = {n: 0.8 * self._normal(*s) for n, s in self.kind.parameters.items()}
        names = {"two": ("z1", "z2"), "nested": ("z",)}.get(shape, ("z",))
        self.parameters = {
            f"{site}.{n}": self._leaf(0.5 * self._normal(*s)) for site in names for n, s in self.kind.parameters.items()
        }
        extra = {"mixed": {"n0.loc": 0.3, "n1.loc": -0.2}, "nested": {"g.logit": 0.4}}.get(shape, {})
        self.parameters |= {n: self._leaf(torch.tensor(v)) for n, v in extra.items()}

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.constants, dtype=torch.float64)

    def _leaf(self, value: Tensor) -> Tensor:
        value = value.to(torch.float64)
        return value.expand(self.replicates, *value.shape).clone().requires_grad_()

    def plate(self) -> pyro.plate:
        """The plate of replicates: dim −1, or −2 where an inner plate is nested in it."""
        if self.shape == "subsampled":
            kept = torch.arange(self.replicates)
            return pyro.plate("replicates", 2 * self.replicates, subsample=kept, dim=-1)
        return pyro.plate("replicates", self.replicates, dim=-2 if self.shape == "nested" else -1)

    def draw(self, site: str, shift: Tensor | float = 0.0, inner: bool = False) -> Tensor:
        """Sample a site of the guide; `shift` (…, WIDTH) moves its parameters as upstream values ask."""
        own = {n.split(".")[1]: p for n, p in self.parameters.items() if n.startswith(f"{site}.")}
        if inner:
            own = {n: p[:, None] for n, p in own.items()}
        return pyro.sample(site, self.kind.make(**self._shifted(own, shift)))

    def _shifted(self, parameters: dict[str, Tensor], shift: Tensor | float) -> dict[str, Tensor]:
        target = parameters[self.kind.shift]
        if isinstance(shift, Tensor):
            shape = self.kind.parameters[self.kind.shift]
            shift = shift[..., : shape[-1]]
            shift = shift[..., None, :] if len(shape) == 2 else shift
            shift = shift if shape != (1,) else shift[..., :1]
        return {**parameters, self.kind.shift: target + shift}

    def guide(self) -> None:
        """q, in the order n0, z1, z, g …"""
        with self.plate():
            match self.shape:
                case "two":
                    z1 = self.draw("z1")
                    self.draw("z2", self.kind.features(z1) @ self.mix["between"])
                case "mixed":
                    n0 = pyro.sample("n0", dist.Normal(self.parameters["n0.loc"], 0.7))
                    z = self.draw("z", n0[..., None] * torch.ones(WIDTH, dtype=n0.dtype))
                    mean = (self.kind.features(z) @ self.mix["down"]).sum(-1)
                    pyro.sample("n1", dist.Normal(self.parameters["n1.loc"] + mean, 0.5))
                case "nested":
                    g = pyro.sample("g", dist.Bernoulli(logits=self.parameters["g.logit"][:, None]))
                    with pyro.plate("data", 2, dim=-1):
                        self.draw("z", g[..., None] * torch.tensor([0.8, -0.5, 0.3], dtype=g.dtype), inner=True)
                case "masked":
                    with pyro.poutine.mask(mask=torch.arange(self.replicates) % 2 == 0):
                        self.draw("z")
                case _:
                    self.draw("z")

    def model(self) -> None:
        """p, top down."""
        with self.plate():
            match self.shape:
                case "two":
                    z2 = pyro.sample("z2", self.kind.make(**self._batched()))
                    shift = self.kind.features(z2) @ self.mix["down"]
                    z1 = pyro.sample("z1", self.kind.make(**self._shifted(self._batched(), shift)))
                    self.observe(self.kind.features(z1))
                case "mixed":
                    n0 = pyro.sample("n0", dist.Normal(0.0, 1.0))
                    z = pyro.sample("z", self.kind.make(**self._batched()))
                    n1 = pyro.sample("n1", dist.Normal(0.3 * n0, 1.0))
                    self.observe(self.kind.features(z) + n0[..., None] - n1[..., None])
                case "nested":
                    g = pyro.sample("g", dist.Bernoulli(0.4))
                    with pyro.plate("data", 2, dim=-1):
                        z = pyro.sample("z", self.kind.make(**self._batched()))
                        self.observe(self.kind.features(z) + g[..., None])
                case "masked":
                    with pyro.poutine.mask(mask=torch.arange(self.replicates) % 2 == 0):
                        self.observe(self.kind.features(pyro.sample("z", self.kind.make(**self._batched()))))
                case _:
                    self.observe(self.kind.features(pyro.sample("z", self.kind.make(**self._batched()))))

    def _batched(self) -> dict[str, Tensor]:
        return dict(self.prior)

    def observe(self, features: Tensor) -> None:
        """x | z: Normal around a tanh of the features, so that f is far from linear in z."""
        pyro.sample("x", dist.Normal(2 * torch.tanh(features @ self.mix["x"]), 0.7).to_event(1), obs=self.x)
