"""Coupled uniforms for the K particles of a site, and a distribution's draw as a function of uniforms.

`points(draws, K, like) -> (rows, …)`: each particle's numbers are uniform and independent of each other, and the
particles together cover (0, 1) more evenly than K independent ones.  `draw(fn, uniforms) -> z` is the path from
uniforms to the value.  Rows beyond the first K are the counterfactual rows of other sites, K at a time: each K are
coupled among themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, TransformedDistribution
from torch.quasirandom import SobolEngine

BITS = 30  # of a Sobol point, as torch's engine makes them


def stratified(u: Tensor) -> Tensor:
    """u_k = (π(k) + v_k)/K, π a random permutation for each coordinate: a Latin hypercube of K points.

    References:
        A Comparison of Three Methods for Selecting Values of Input Variables in the Analysis of Output from a Computer
        Code. McKay, Beckman, Conover, 1979.
    """
    return (torch.rand_like(u).argsort(0) + u) / len(u)


def antithetic(u: Tensor) -> Tensor:
    """v, then 1 − v for the second half of the particles; the last of an odd number is on its own."""
    half = u[: (len(u) + 1) // 2]
    return torch.cat([half, 1 - half])[: len(u)]


def sobol(u: Tensor) -> Tensor:
    """The first K points of Sobol's sequence, their digits shifted at random: one shift for each member of the plates.

    u is (K, blocks, members, D). A shift is a digit-wise sum modulo 2, so each point is uniform.

    References:
        Quasi-Monte Carlo Variational Inference. Buchholz, Wenzel, Mandt, 2018.
    """
    digits = _sobol_digits(len(u), u.shape[-1]).to(u.device)  # (K, D)
    shift = (u[:1] * 2**BITS).long()
    return ((digits[:, None, None] ^ shift).to(u.dtype) + 0.5) / 2**BITS


@cache
def _sobol_digits(points: int, dimension: int) -> Tensor:
    drawn = SobolEngine(dimension).draw(points, dtype=torch.float64)
    return (drawn * 2**BITS).long()


DRAWS: dict[str, Callable[[Tensor], Tensor]] = {"stratified": stratified, "antithetic": antithetic, "sobol": sobol}
"""How the K numbers of a coordinate are coupled: independent uniforms (K, blocks, members, D) → coupled ones."""


def draw(fn: Any, couple: Callable[[Tensor], Tensor], particles: int) -> Tensor:
    """A reparameterised draw (rows, *plates, *event) whose noise is coupled in blocks of K rows."""
    return _drawn(_inner(fn), lambda u: _blockwise(u, couple, particles, fn.batch_shape[1:].numel()))


def _drawn(inner: Any, coupled: Callable[[Tensor], Tensor]) -> Tensor:
    if isinstance(inner, TransformedDistribution):
        value: Any = _drawn(_inner(inner.base_dist), coupled)  # Pyro types a transform as optional
        for transform in inner.transforms:
            value = transform(value)
        return value
    like = inner.mean
    u = torch.rand((*inner.batch_shape, *inner.event_shape), dtype=like.dtype, device=like.device)
    eps = torch.finfo(u.dtype).eps
    return _path(inner, coupled(u).clamp(eps, 1 - eps))


def _blockwise(u: Tensor, couple: Callable[[Tensor], Tensor], particles: int, members: int) -> Tensor:
    blocks = u.reshape(-1, particles, members, u[0].numel() // members).transpose(0, 1)
    return couple(blocks).transpose(0, 1).reshape(u.shape)


def _path(inner: Any, u: Tensor) -> Tensor:
    """The value that uniforms stand for: Cholesky factor times normal numbers, or the quantile function."""
    if isinstance(inner, MultivariateNormal):
        eps = dist.Normal(torch.zeros_like(u), 1.0).icdf(u)
        return inner.loc + (inner.scale_tril @ eps[..., None])[..., 0]
    return inner.icdf(u)


def has_path(fn: Any) -> bool:
    """Whether `draw` can serve a distribution: quantile function, full normal, or a transform of one of them."""
    inner = _inner(fn)
    if isinstance(inner, TransformedDistribution):
        return has_path(inner.base_dist)
    return isinstance(inner, MultivariateNormal) or _quantiles(type(inner))


def _quantiles(kind: type) -> bool:
    bare = (torch.distributions.Distribution.icdf, TransformedDistribution.icdf)
    return kind.icdf not in bare  # type: ignore[attr-defined]  # every distribution has one


def _inner(fn: Any) -> Any:
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn
