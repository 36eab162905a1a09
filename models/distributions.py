"""The distributions of layers and of data: products of independent variables, with densities in few passes over memory.

`Normals`, `Bits` and `Pixels` are `Independent` with a faster computation of the same log-probability. torch's own
computation expands the parameters over rows, works element by element and differentiates every operation. It takes a
large share of a training step of a small model.
"""

import math

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn import functional as F

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
NO_SHAPE = torch.Size()


class Factorised(dist.Independent):
    """A product of D independent finite variables whose joint support can be enumerated.

    `Independent` refuses to enumerate more than one variable. Summing a layer out exactly needs all joint states: S^D
    for D variables of S states each. It is meant for small layers: ten Bernoulli variables have 2^10 joint states.
    """

    @property
    def has_enumerate_support(self) -> bool:
        return self.base_dist.has_enumerate_support

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All joint states: (S^D, *batch, D, *event) if `expand`, otherwise with batch dimensions of size 1."""
        event_dim = len(self.base_dist.event_shape)
        each = self.base_dist.enumerate_support(expand=False)
        each = each.reshape(len(each), *self.base_dist.event_shape)  # (S, *event)
        variables = self.event_shape[0]
        index = torch.cartesian_prod(*[torch.arange(len(each), device=each.device)] * variables)
        states = each[index.reshape(-1, variables)]  # (S^D, D, *event)
        batch = len(self.batch_shape)
        states = states.reshape(len(states), *[1] * batch, *states.shape[1:])
        return states.expand(-1, *self.batch_shape, *[-1] * (1 + event_dim)) if expand else states


class OneHot(dist.OneHotCategorical):
    """One-hot variable that is drawn with tensor operations only.

    torch's `one_hot` reads a value back to Python, which a compiled graph cannot do.
    """

    def sample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:
        index = self._categorical.sample(sample_shape)
        return torch.eye(self.event_shape[0], dtype=self.logits.dtype, device=index.device)[index]


class Normals(dist.Independent):
    """Π_d N(z_d; μ_d, σ_d²) over the last dimension: −½ Σ t² − Σ log σ − ½ D log 2π with t = (z − μ)/σ."""

    def log_prob(self, value: Tensor) -> Tensor:
        base = _checked(self, value)
        squares = ((value - base.loc) / base.scale).square().sum(-1)
        volume = once(base.scale).log().sum(-1) + HALF_LOG_TAU * self.event_shape[0]
        return torch.add(-volume, squares, alpha=-0.5)


class Bits(Factorised):
    """Π_d Bernoulli(b_d; σ(φ_d)) over the last dimension: Σ_d b_d φ_d − log(1 + e^φ_d), φ_d the logits.

    Linear in b, also for relaxed values between 0 and 1.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        logits = _checked(self, value).logits
        # Above its threshold softplus returns its argument: exact in float64 at 40, but not at torch's default of 20.
        return torch.addcmul(-F.softplus(once(logits), threshold=40.0), value, logits).sum(-1)


class Pixels(dist.Independent):
    """Π_d Bernoulli(x_d; σ(φ_d)) over the last dimension, for logits of the shape of the data.

    The sign is changed after the sum over d, which saves two passes over (…, X).
    """

    def log_prob(self, value: Tensor) -> Tensor:
        logits, value = torch.broadcast_tensors(_checked(self, value).logits, value)
        return -F.binary_cross_entropy_with_logits(logits, value, reduction="none").sum(-1)


def once(parameters: Tensor) -> Tensor:
    """Parameters (…, D) without the repetitions of `expand`: repeated dimensions before the last one get size 1."""
    repeats = [size > 1 and stride == 0 for size, stride in zip(parameters.shape, parameters.stride(), strict=True)]
    if not any(repeats[:-1]):
        return parameters
    return parameters[tuple(slice(0, 1) if repeat else slice(None) for repeat in repeats[:-1])]


def _checked(fn: dist.Independent, value: Tensor) -> dist.TorchDistribution:
    """The distribution of one variable, after it has checked the value where validation is on."""
    base = fn.base_dist
    if base._validate_args:
        base._validate_sample(value)
    return base
