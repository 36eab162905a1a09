"""Small problems with exact gradients: `make_toy(latent, size, …) -> Toy`, a model, a guide and its parameters.

Two costs. "elbo": z ~ the family's standard member, x | z through a fixed random network, compared with one x; the
guide has parameters of its own, drawn once. "square": maximise E[Σ_d (b_d − p₀)²], b ~ Bernoulli(σ(φ)), the toy that
every paper on discrete gradients starts from, whose exact gradient is (1 − 2 p₀) σ(φ) (1 − σ(φ)).

References:
    REBAR: Low-Variance, Unbiased Gradient Estimates for Discrete Latent Variable Models. Tucker, Mnih, Maddison,
    Lawson, Sohl-Dickstein, 2017 (p₀ = .45). Backpropagation through the Void. Grathwohl, Choi, Wu, Roeder, Duvenaud,
    2018 (p₀ = .499).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pathscore.elbos import kl_weighted
from pathscore.errors import UsageError, unknown

X, HIDDEN = 8, 8


@dataclass(frozen=True)
class ToyFamily:
    """A latent family: `make(raw (D, n)) -> distribution`, `features(z) -> (…, width)` read by the network.

    size: D if none is asked for, small enough for an exact gradient. raw: numbers n a variable takes.
    prior: from raw numbers of the right shape; None: `make` of zeros.
    linear: whether x is a linear function of z plus Normal noise, so that the ELBO has a closed form.
    """

    size: int
    raw: int
    make: Callable[[Tensor], Any]
    features: Callable[[Tensor], Tensor]
    prior: Callable[[Tensor], Any] | None = None
    linear: bool = False


def _one_hot(raw: Tensor) -> Any:
    return dist.OneHotCategorical(logits=raw)


def _standard(family: Callable) -> Callable[[Tensor], Any]:
    return lambda raw: family(torch.zeros_like(raw[..., 0]), 1.0)


TOYS: dict[str, ToyFamily] = {
    "bernoulli": ToyFamily(6, 1, lambda raw: dist.Bernoulli(logits=raw[..., 0]), lambda z: 2 * z - 1),
    "categorical": ToyFamily(4, 3, _one_hot, lambda z: z.flatten(-2) - 1 / z.shape[-1]),
    "normal": ToyFamily(
        6, 2, lambda raw: dist.Normal(raw[..., 0], (raw[..., 1] - 0.5).exp()), lambda z: z, _standard(dist.Normal), True
    ),
    # A smooth prior: the exact gradient does not depend on where a kink of its own lies.
    "laplace": ToyFamily(
        2, 2, lambda raw: dist.Laplace(raw[..., 0], (raw[..., 1] - 0.5).exp()), lambda z: z, _standard(dist.Normal)
    ),
    "lognormal": ToyFamily(
        2,
        2,
        lambda raw: dist.LogNormal(raw[..., 0], (raw[..., 1] - 1).exp()),
        lambda z: z - 1,
        _standard(dist.LogNormal),
    ),
    "gamma": ToyFamily(2, 2, lambda raw: dist.Gamma(2 * raw[..., 0].exp(), 2 * raw[..., 1].exp()), lambda z: z - 1),
    "poisson": ToyFamily(2, 1, lambda raw: dist.Poisson(raw[..., 0].exp()), lambda z: z - 1),
}


@dataclass(frozen=True)
class Toy:
    """A problem: `measure(toy.model, toy.guide)`. title: its line in tables."""

    model: Callable
    guide: Callable
    title: str


def make_toy(
    latent: str = "bernoulli",
    size: int | None = None,
    *,
    classes: int = 3,
    cost: str = "elbo",
    target: float = 0.499,
    seed: int = 0,
) -> Toy:
    """The problem of a latent family with `size` variables (its default if None), in double precision.

    classes: of a categorical. target: p₀ of the cost "square". seed: of the network's weights and guide's parameters.

    Raises: UsageError for an unknown family or cost, or "square" for anything but Bernoulli.
    """
    if latent not in TOYS:
        raise unknown("latent", latent, TOYS)
    if cost not in COSTS:
        raise unknown("cost", cost, COSTS)
    family, stream = TOYS[latent], torch.Generator().manual_seed(seed)
    size = size or (1 if cost == "square" else family.size)
    shape = (size, classes if latent == "categorical" else family.raw)
    raw = 0.5 * torch.randn(shape, generator=stream, dtype=torch.float64)

    def guide() -> None:
        pyro.sample("z", family.make(raw).to_event(1))

    return COSTS[cost](latent, family, guide, raw, stream, target)


def _elbo(latent: str, family: ToyFamily, guide: Callable, raw: Tensor, stream: torch.Generator, _: float) -> Toy:
    width = family.features(family.make(raw).sample()).shape[-1]
    inner, outer = (torch.randn(n, HIDDEN, generator=stream, dtype=raw.dtype) / n**0.5 for n in (width, X))
    prior = family.prior(raw) if family.prior else family.make(torch.zeros_like(raw))
    x = (torch.rand(X, generator=stream, dtype=raw.dtype) < 0.5).to(raw)

    def model() -> None:
        hidden = family.features(pyro.sample("z", prior.to_event(1))) @ inner
        means = (hidden if family.linear else 2 * torch.tanh(hidden)) @ outer.T
        noise = dist.Normal(means, 1.0) if family.linear else dist.Bernoulli(logits=means)
        pyro.sample("x", noise.to_event(1), obs=x)

    return Toy(model, guide, f"ELBO of {len(raw)} {latent} variables, {X} observed numbers")


def _square(latent: str, family: ToyFamily, guide: Callable, raw: Tensor, _: Any, target: float) -> Toy:
    if latent != "bernoulli":
        raise UsageError(f"--cost square is E[(b − p₀)²] of Bernoulli bits: use --latent bernoulli, not {latent}")

    def model() -> None:
        b = pyro.sample("z", dist.Bernoulli(logits=torch.zeros_like(raw[:, 0])).to_event(1))
        pyro.factor("cost", (b - target).square().sum(-1))

    # Without the latent terms the bound is E[f(b)] alone.
    return Toy(kl_weighted(model, 0.0), kl_weighted(guide, 0.0), f"E[(b − {target:g})²] of {len(raw)} Bernoulli bits")


COSTS: dict[str, Callable[..., Toy]] = {"elbo": _elbo, "square": _square}
