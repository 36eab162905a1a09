"""Where to put the nodes of one latent variable: its finite support, or a one-dimensional quadrature rule.

`rule_for(name, fn, nodes, prior) -> Rule` looks the distribution up in a table; `rule.place(base, index)` returns, for
the node that `index` (S, 1, …, *elements) names at each row, value, log weight and log measure, all per event
element: Σ_i exp(log_weight_i) f(value_i) ≈ E_q f, and Σ_i exp(log_measure_i) f(value_i) ≈ ∫ f. A finite support
has measure 1. The rules, exact up to the stated limit:

- Normal and its elementwise transforms (LogNormal, …): Gauss–Hermite, nodes move with the parameters;
  exact for polynomials in z of degree 2 n − 1.
- Laplace: Gauss–Laguerre on each side of the location, n/2 nodes a side; where the model's law at the site is a
  Laplace as well, outside of both kinks, and Gauss–Legendre between them, n/3 nodes each.
- other continuous laws (Gamma, Beta, StudentT, …): the double exponential rule, z = T(c + s sinh u) with T the
  map from ℝ to the support, equal steps in u where q has mass; error falls geometrically with n for densities
  that are smooth inside their support.
- counts without an upper end (Poisson, Geometric, …): the first states, up to a tail of about 1e-16.

References: Golub & Welsch, "Calculation of Gauss quadrature rules", 1969. Takahasi & Mori, "Double exponential
formulas for numerical integration", 1974.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from pyro import distributions as dist
from torch.distributions import biject_to, constraints

from pathscore.errors import UsageError

GAUSS_LIMIT = 180  # the weights of further Gauss nodes are below 1e-150, and their computation overflows
Placed = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Rule:
    """`size` nodes per event element; `place(base, index)` → (value, log_weight, log_measure).

    exact: whether sums over the nodes are expectations whatever is summed; a quadrature needs it to be smooth.
    """

    size: int
    place: Callable[[torch.distributions.Distribution, torch.Tensor], Placed]
    exact: bool = False


def unwrap(fn):
    """The distribution of one event element: without Independent, masks and expansions (batch shape kept)."""
    while isinstance(fn, (torch.distributions.Independent, dist.MaskedDistribution, dist.ExpandedDistribution)):
        fn = fn.base_dist
    return fn


def elements(fn) -> torch.Size:
    """Shape of the independent event elements: (D,) for Bernoulli(…).to_event(1), () for a Categorical."""
    return fn.event_shape[: len(fn.event_shape) - len(unwrap(fn).event_shape)]


def _spread(value: torch.Tensor, base) -> torch.Tensor:
    """Broadcast a value (S, 1, …, *elements, *event) against the parameters of `base`."""
    batch = value.shape[: value.dim() - len(base.event_shape)]
    return value.expand(torch.broadcast_shapes(batch, base.batch_shape) + base.event_shape)


def _weighted(base, value: torch.Tensor, log_weight: torch.Tensor) -> Placed:
    """Nodes with given weights under q: the measure is weight / density."""
    return value, log_weight, log_weight - base.log_prob(value)


def finite(base, nodes: int) -> Rule:
    """Every state of the support, weighted by its own probability."""
    support = base.enumerate_support(expand=False)
    size = support.shape[0]

    def place(base, index):
        support = base.enumerate_support(expand=False).reshape(size, *base.event_shape)
        value = _spread(support[index.to(support.device)], base)
        log_q = base.log_prob(value)
        return value, log_q, torch.zeros_like(log_q)

    return Rule(size, place, exact=True)


def counts(base, nodes: int) -> Rule:
    """States 0, 1, … up to 12 standard deviations and 40 above the mean."""
    size = int((base.mean + 12 * base.stddev).max().item()) + 40

    def place(base, index):
        value = _spread(index.to(base.mean), base)
        log_q = base.log_prob(value)
        return value, log_q, torch.zeros_like(log_q)

    return Rule(size, place, exact=True)


def point(base, nodes: int) -> Rule:
    """A Delta: one node."""

    def place(base, index):
        value = _spread(base.v, base)
        zero = torch.zeros(torch.broadcast_shapes(index.shape, base.batch_shape), device=value.device)
        return value, zero, zero

    return Rule(1, place, exact=True)


def _constant(array: np.ndarray, index: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(array, dtype=like.dtype, device=like.device)[index.to(like.device)]


def hermite(base, nodes: int) -> Rule:
    """Normal: z = μ + σ t, with t and weights of Gauss–Hermite for the standard Normal."""
    t, weight = np.polynomial.hermite_e.hermegauss(min(nodes, GAUSS_LIMIT))
    log_weight = np.log(weight / math.sqrt(2 * math.pi))

    def place(base, index):
        value = base.loc + base.scale * _constant(t, index, base.loc)
        return _weighted(base, value, _constant(log_weight, index, base.loc).expand_as(value))

    return Rule(len(t), place)


def laguerre(base, nodes: int) -> Rule:
    """Laplace: z = μ ± b t, with t and weights of Gauss–Laguerre on each side of the kink at μ."""
    half, half_weight = np.polynomial.laguerre.laggauss(min(max(nodes, 2), GAUSS_LIMIT) // 2)
    t, log_weight = np.concatenate([-half, half]), np.log(np.tile(half_weight / 2, 2))

    def place(base, index):
        value = base.loc + base.scale * _constant(t, index, base.loc)
        return _weighted(base, value, _constant(log_weight, index, base.loc).expand_as(value))

    return Rule(len(t), place)


def between_kinks(base, nodes: int, kink: torch.Tensor) -> Rule:
    """Laplace with a second kink in the model: Laguerre below and above the two, Legendre in between.

    The second one's place may depend on parameters and on what is drawn upstream; here it is that of one run. Wherever
    it is the rule integrates smooth functions, and it is exact for the prior where its place is the same in all rows.
    """
    third = max(1, min(nodes, GAUSS_LIMIT) // 3)
    (tail, tail_weight), (inner, inner_weight) = (
        np.polynomial.laguerre.laggauss(third),
        np.polynomial.legendre.leggauss(third),
    )
    kind = np.repeat([0, 1, 2], third)
    t = np.concatenate([tail, (inner + 1) / 2, tail])
    log_rule = np.log(np.concatenate([tail_weight / 2, inner_weight / 2, tail_weight / 2]))

    def place(base, index):
        loc, scale = base.loc, base.scale
        low, high = torch.minimum(loc, kink.to(loc)), torch.maximum(loc, kink.to(loc))
        gap = (high - low).clamp_min(torch.finfo(loc.dtype).tiny)  # no panel: weights of nothing, and no NaN
        at, log_weight = _constant(t, index, loc), _constant(log_rule, index, loc)
        which = torch.as_tensor(kind, device=loc.device)[index.to(loc.device)]
        value = torch.where(which == 0, low - scale * at, torch.where(which == 1, low + gap * at, high + scale * at))
        beyond = torch.where(which == 0, low - loc, loc - high) / scale  # log of twice q's mass in that tail
        log_weight = log_weight + torch.where(which == 1, base.log_prob(value) + gap.log(), beyond)
        return _weighted(base, value, log_weight)

    return Rule(3 * third, place)


def transformed(base, nodes: int) -> Rule:
    """An elementwise transform of a law that has a rule: that rule's nodes, carried through the transform."""
    inner = rule_for("", base.base_dist, nodes)

    def place(base, index):
        value, log_weight, _ = inner.place(base.base_dist, index)
        for transform in base.transforms:
            value = transform(value)
        return _weighted(base, value, log_weight)

    return Rule(inner.size, place)


def _core(base, transform) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Centre c and scale s of v = T⁻¹(z), and the range of u = asinh((v − c)/s) that holds all but 1e-17 of q."""
    like = torch.zeros((), dtype=base.mean.dtype, device=base.mean.device)
    u = torch.linspace(-7, 7, 1401, dtype=like.dtype, device=like.device).reshape(-1, *(1,) * len(base.batch_shape))

    def log_density(centre, scale):
        v = centre + scale * torch.sinh(u)
        z = transform(v)
        inside = base.support.check(z) & torch.isfinite(z)
        safe = torch.where(inside, z, transform(like))
        log = base.log_prob(safe) + transform.log_abs_det_jacobian(v, safe) + torch.log(scale * torch.cosh(u))
        return v, torch.where(inside & torch.isfinite(log), log, -torch.inf)

    v, log = log_density(like, torch.ones_like(like))
    weight = log.softmax(0)
    centre = (weight * v).sum(0)
    scale = (weight * (v - centre) ** 2).sum(0).sqrt().clamp_min(1e-3)
    _, log = log_density(centre, scale)
    kept = log > log.max(0, keepdim=True).values - 39
    ends = torch.where(kept, u, torch.inf).amin(0), torch.where(kept, u, -torch.inf).amax(0)
    return centre, scale, *ends


def double_exponential(base, nodes: int) -> Rule:
    """z = T(c + s sinh u), equal steps in u; the nodes stay where q's present parameters put them."""

    def place(base, index):
        transform = biject_to(base.support)
        with torch.no_grad():
            centre, scale, low, high = _core(base, transform)
            step = (high - low) / (nodes - 1)
            u = low + step * index.to(step)
            v = centre + scale * torch.sinh(u)
            value = transform(v)
            jacobian = transform.log_abs_det_jacobian(v, value)
            log_measure = jacobian + torch.log(scale * torch.cosh(u) * step)
        return value, base.log_prob(value) + log_measure, log_measure

    return Rule(nodes, place)


def _bijection_of_gauss(base) -> bool:
    """An elementwise bijection of a law with a Gauss rule (not |z|, which would fold the nodes onto each other)."""
    return (
        isinstance(base, torch.distributions.TransformedDistribution)
        and isinstance(base.base_dist, (torch.distributions.Normal, torch.distributions.Laplace))
        and all(t.bijective and t.codomain.event_dim == 0 for t in base.transforms)
    )


def _support_is(*kinds: constraints.Constraint) -> Callable[..., bool]:
    return lambda base: not base.event_shape and isinstance(base.support, tuple(type(kind) for kind in kinds))


# The first line whose test holds for a distribution gives its rule.
RULES: tuple[tuple[Callable[..., bool], Callable[..., Rule]], ...] = (
    (lambda base: base.has_enumerate_support, finite),
    (lambda base: isinstance(base, torch.distributions.Normal), hermite),
    (lambda base: isinstance(base, torch.distributions.Laplace), laguerre),
    (lambda base: isinstance(base, dist.Delta), point),
    (_bijection_of_gauss, transformed),
    (_support_is(constraints.nonnegative_integer), counts),
    (
        _support_is(constraints.real, constraints.positive, constraints.nonnegative, constraints.unit_interval),
        double_exponential,
    ),
)


def rule_for(name: str, fn, nodes: int, prior=None) -> Rule:
    """The rule of one latent site; `prior` is what the model has there.

    Raises UsageError when the site's distribution has neither a finite support nor a one-dimensional rule.
    """
    base, above, laplace = unwrap(fn), unwrap(prior), torch.distributions.Laplace
    if isinstance(base, laplace) and isinstance(above, laplace):
        return between_kinks(base, nodes, above.loc.detach())
    for applies, make in RULES:
        if applies(base):
            return make(base, nodes)
    raise UsageError(
        f"site {name!r} has distribution {type(base).__name__}: exact computation needs a finite support "
        "or a one-dimensional continuous variable; estimate by sampling instead"
    )
