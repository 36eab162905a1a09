"""The nodes of one latent variable: its finite support, or a one-dimensional quadrature rule.

`rule_for(name, fn, nodes, prior) -> Rule` looks the distribution up in a table. `rule.place(base, index)` returns
value, log weight and log measure of the node that `index` (S, 1, …, *elements) names in each row, per event element:
Σ_i exp(log_weight_i) f(value_i) ≈ E_q f, and Σ_i exp(log_measure_i) f(value_i) ≈ ∫ f. A finite support has measure 1.
The rules and their accuracy:

- Normal and its elementwise transforms (LogNormal, …): Gauss–Hermite, nodes move with the parameters;
  exact for polynomials in z of degree 2 n − 1.
- Laplace: Gauss–Laguerre on each side of the location, n/2 nodes per side. Where the model's distribution at the site
  is a Laplace as well: Gauss–Laguerre outside both kinks and Gauss–Legendre between them, n/3 nodes each.
- other continuous distributions (Gamma, Beta, StudentT, …): the double exponential rule, z = T(c + s sinh u), where T
  maps ℝ to the support, with equal steps in u where q has mass. The error decreases geometrically with n for
  densities that are smooth inside their support.
- counts without an upper limit (Poisson, Geometric, …): the first states, up to a tail of about 1e-16.

References: Golub & Welsch, "Calculation of Gauss quadrature rules", 1969. Takahasi & Mori, "Double exponential
formulas for numerical integration", 1974.
"""

from collections.abc import Callable

import torch
from pyro import distributions as dist
from torch.distributions import biject_to, constraints

from pathscore.errors import UsageError
from pathscore.exact.gauss import between_kinks, hermite, laguerre
from pathscore.exact.rule import Rule, spread, weighted


def unwrap(fn):
    """The distribution of one event element: without Independent, masks and expansions (batch shape kept)."""
    while isinstance(fn, (torch.distributions.Independent, dist.MaskedDistribution, dist.ExpandedDistribution)):
        fn = fn.base_dist
    return fn


def elements(fn) -> torch.Size:
    """Shape of the independent event elements: (D,) for Bernoulli(…).to_event(1), () for a Categorical."""
    return fn.event_shape[: len(fn.event_shape) - len(unwrap(fn).event_shape)]


def finite(base, nodes: int) -> Rule:
    """Every state of the support, weighted by its own probability."""
    support = base.enumerate_support(expand=False)
    size = support.shape[0]

    def place(base, index):
        support = base.enumerate_support(expand=False).reshape(size, *base.event_shape)
        value = spread(support[index.to(support.device)], base)
        log_q = base.log_prob(value)
        return value, log_q, torch.zeros_like(log_q)

    return Rule(size, place, exact=True)


def counts(base, nodes: int) -> Rule:
    """States 0, 1, … up to 12 standard deviations and 40 above the mean."""
    size = int((base.mean + 12 * base.stddev).max().item()) + 40

    def place(base, index):
        value = spread(index.to(base.mean), base)
        log_q = base.log_prob(value)
        return value, log_q, torch.zeros_like(log_q)

    return Rule(size, place, exact=True)


def point(base, nodes: int) -> Rule:
    """A Delta distribution: one node."""

    def place(base, index):
        value = spread(base.v, base)
        zero = torch.zeros(torch.broadcast_shapes(index.shape, base.batch_shape), device=value.device)
        return value, zero, zero

    return Rule(1, place, exact=True)


def transformed(base, nodes: int) -> Rule:
    """An elementwise transform of a distribution that has a rule: that rule's nodes, transformed."""
    inner = rule_for("", base.base_dist, nodes)

    def place(base, index):
        value, log_weight, _ = inner.place(base.base_dist, index)
        for transform in base.transforms:
            value = transform(value)
        return weighted(base, value, log_weight)

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
    """z = T(c + s sinh u), equal steps in u. The nodes are constants at q's present parameters."""

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
    """Whether this is an elementwise bijection of a distribution with a Gauss rule (|z| is not a bijection)."""
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
    """The rule of one latent site; `prior` is the model's distribution at this site.

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
