"""The distributions of random programs, each twice: as text for Pyro, and as a log-density written out by hand.

A site has one natural parameter `s`, which other sites move, and some laws a second one, `r`.  A `Kind` is a set of
values: the atoms that a sum or a quadrature rule visits, and the number ("feature") that other sites read of a value.
Atoms are (value, log of the measure): counting measure for discrete values, the trapezoidal rule for continuous ones.
Its error is below 1e-6 here, because all integrands are analytic and vanish at both ends (Trefethen & Weideman 2014).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

F64 = torch.float64
SPREAD = torch.tensor([1.0, -0.7, 0.4], dtype=F64)
MOST = 40
"""Largest count that is summed over: the mass above it is below 1e-10 at the parameters that programs have."""

Atoms = tuple[Tensor, Tensor]


def line(low: float, high: float, nodes: int) -> tuple[Tensor, float]:
    return torch.linspace(low, high, nodes, dtype=F64), (high - low) / (nodes - 1)


def counted(values: Tensor) -> Atoms:
    return values, torch.zeros(len(values), dtype=F64)


def real() -> Atoms:
    t, h = line(-9, 9, 41)
    return t, torch.full_like(t, h).log()


def positive() -> Atoms:
    t, h = line(-12, 6, 55)
    return t.exp(), torch.full_like(t, h).log() + t


def unit() -> Atoms:
    t, h = line(-12, 12, 69)
    return t.sigmoid(), torch.full_like(t, h).log() + logsigmoid(t) + logsigmoid(-t)


def simplex() -> Atoms:
    t, h = line(-12, 12, 41)
    a, b = (m.flatten() for m in torch.meshgrid(t, t, indexing="ij"))
    rest = (-a).sigmoid()
    value = torch.stack([a.sigmoid(), rest * b.sigmoid(), rest * (-b).sigmoid()], -1)
    measure = torch.full_like(a, h * h).log() + logsigmoid(a) + 2 * logsigmoid(-a) + logsigmoid(b) + logsigmoid(-b)
    return value, measure


@dataclass(frozen=True)
class Kind:
    """A set of values; `text` and `feature` are the number that is read of a value, for Pyro and by hand."""

    atoms: Callable[[], Atoms]
    text: str
    feature: Callable[[Tensor], Tensor]


def spread(z: Tensor) -> Tensor:
    return (z * SPREAD).sum(-1)


KINDS = {
    "bit": Kind(lambda: counted(torch.tensor([0.0, 1.0], dtype=F64)), "{z}", lambda z: z),
    "class": Kind(lambda: counted(torch.arange(3)), "SPREAD[{z}]", lambda z: SPREAD[z]),
    "one-hot": Kind(lambda: counted(torch.eye(3, dtype=F64)), "({z} * SPREAD).sum(-1)", spread),
    "count": Kind(
        lambda: counted(torch.arange(MOST + 1, dtype=F64)), "torch.tanh({z} / 2)", lambda z: torch.tanh(z / 2)
    ),
    "tally": Kind(lambda: counted(torch.arange(4, dtype=F64)), "{z} / 2", lambda z: z / 2),
    "real": Kind(real, "{z}", lambda z: z),
    "positive": Kind(positive, "torch.log1p({z})", torch.log1p),
    "unit": Kind(unit, "{z}", lambda z: z),
    "simplex": Kind(simplex, "({z} * SPREAD).sum(-1)", spread),
}


@dataclass(frozen=True)
class Law:
    """A distribution: its text with the parameters {s} and {r}, its log-density at (z, s, r), its `tail` of s.

    how: "plain"; "auto" for an autoguide's pair of a hidden Normal and a point mass at `text` of it; "point" for a
    point mass, whose value is s itself.
    """

    kind: str
    text: str
    density: Callable[[Tensor, Tensor, Tensor], Tensor]
    tail: int = 0
    how: str = "plain"

    @property
    def second(self) -> bool:
        return self.how == "auto" or "{r}" in self.text


def bernoulli(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    return z * logsigmoid(s) + (1 - z) * logsigmoid(-s)


def categorical(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    return s.log_softmax(-1).expand(*z.shape, 3).gather(-1, z[..., None])[..., 0]


def one_hot(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    return (z * s.log_softmax(-1)).sum(-1)


def poisson(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    return z * s / 2 - (s / 2).exp() - torch.lgamma(z + 1)


def geometric(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    return logsigmoid(1 + s / 2) + z * logsigmoid(-1 - s / 2)


def negative_binomial(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    return torch.log(z + 1) + 2 * logsigmoid(1 - s / 2) + z * logsigmoid(s / 2 - 1)  # two failures


def binomial(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    ways = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=F64).log()
    return ways[z.long()] + z * logsigmoid(s) + (3 - z) * logsigmoid(-s)


def gaussian(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return -(((z - loc) / scale) ** 2) / 2 - scale.log() - torch.log(torch.tensor(2 * torch.pi, dtype=F64)) / 2


def normal(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    return gaussian(z, s, 0.8 * (r / 2).exp())


def student(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    five = torch.tensor(5.0, dtype=F64)
    constant = torch.lgamma((five + 1) / 2) - torch.lgamma(five / 2) - (five * torch.pi).log() / 2
    return constant - 3 * torch.log1p((z - s) ** 2 / 5)


def gamma(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    shape = 1 + (r / 2).exp()
    return shape * s / 2 + (shape - 1) * z.log() - (s / 2).exp() * z - torch.lgamma(shape)


def exponential(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    return s / 2 - (s / 2).exp() * z


def log_normal(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    return gaussian(z.log(), s, 0.5 * (r / 2).exp()) - z.log()


def logit_normal(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    u = torch.logit(z)
    return gaussian(u, s, 0.5 * (r / 2).exp()) + softplus(u) + softplus(-u)


def auto_normal(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    return gaussian(z, s, 0.5 * (r / 2).exp())


def beta(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    a, b = 1 + (s / 2).exp(), 1 + (r / 2).exp()
    return (a - 1) * z.log() + (b - 1) * (-z).log1p() + torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)


def dirichlet(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    a = 1 + (s / 2).exp()
    return ((a - 1) * z.log() - torch.lgamma(a)).sum(-1) + torch.lgamma(a.sum(-1))


def point(z: Tensor, s: Tensor, r: Tensor) -> Tensor:
    return torch.zeros_like(z)


NORMAL = "dist.Normal({s}, 0.8 * torch.exp({r} / 2))"
AFFINE = (
    "dist.TransformedDistribution(dist.Normal(torch.zeros_like({s}), 1.0), "
    "[dist.transforms.AffineTransform({s}, 0.8 * torch.exp({r} / 2))])"
)

PRIORS = {
    "bernoulli": Law("bit", "dist.Bernoulli(logits={s})", bernoulli),
    "categorical": Law("class", "dist.Categorical(logits={s})", categorical, 3),
    "one-hot": Law("one-hot", "dist.OneHotCategorical(logits={s})", one_hot, 3),
    "poisson": Law("count", "dist.Poisson(torch.exp({s} / 2))", poisson),
    "geometric": Law("count", "dist.Geometric(logits=1 + {s} / 2)", geometric),
    "binomial": Law("tally", "dist.Binomial(3, logits={s})", binomial),
    "normal": Law("real", NORMAL, normal),
    "student": Law("real", "dist.StudentT(5.0, {s}, 1.0)", student),
    "gamma": Law("positive", "dist.Gamma(1 + torch.exp({r} / 2), torch.exp({s} / 2))", gamma),
    "exponential": Law("positive", "dist.Exponential(torch.exp({s} / 2))", exponential),
    "beta": Law("unit", "dist.Beta(1 + torch.exp({s} / 2), 1 + torch.exp({r} / 2))", beta),
    "dirichlet": Law("simplex", "dist.Dirichlet(1 + torch.exp({s} / 2))", dirichlet, 3),
}

STRAIGHT = "dist.Relaxed{}StraightThrough(torch.tensor(0.7), logits={{s}})"
GUIDES = {
    **{name: law for name, law in PRIORS.items() if name not in ("student", "exponential")},
    "bernoulli-st": Law("bit", STRAIGHT.format("Bernoulli"), bernoulli),
    "one-hot-st": Law("one-hot", "dist.OneHotCategoricalStraightThrough(logits={s})", one_hot, 3),
    "relaxed-one-hot-st": Law("one-hot", STRAIGHT.format("OneHotCategorical"), one_hot, 3),
    "negative-binomial": Law("count", "dist.NegativeBinomial(2.0, logits={s} / 2 - 1)", negative_binomial),
    "affine": Law("real", AFFINE, normal),
    "log-normal": Law("positive", "dist.LogNormal({s}, 0.5 * torch.exp({r} / 2))", log_normal),
    "auto": Law("real", "{u}", auto_normal, how="auto"),
    "auto-exp": Law("positive", "{u}.exp()", log_normal, how="auto"),
    "auto-sigmoid": Law("unit", "{u}.sigmoid()", logit_normal, how="auto"),
    "point": Law("real", "dist.Delta({s})", point, how="point"),
}
JACOBIAN = {"auto": "torch.zeros_like({u})", "auto-exp": "-{u}", "auto-sigmoid": "softplus({u}) + softplus(-{u})"}
"""Log-density of an autoguide's point mass: minus the log-derivative of its transform."""

OBSERVED = {
    "normal": Law("real", "dist.Normal(2 * {s}, 0.7)", lambda z, s, r: gaussian(z, 2 * s, torch.tensor(0.7).double())),
    "bernoulli": PRIORS["bernoulli"],
    "categorical": PRIORS["categorical"],
    "poisson": PRIORS["poisson"],
    "factor": Law("real", "{s}", lambda z, s, r: s, how="factor"),
}
