"""The distributions of layers and of data: products of independent variables, with densities in few passes over memory.

`Normals`, `Bits` and `Pixels` are `Independent` with another way to the same log-probability: a training step of a
small model spends a good part of its time in torch's, which works element by element on parameters that were expanded
over rows, and is differentiated operation by operation.
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

    `Independent` refuses to enumerate more than one variable. Summing a layer out exactly needs all joint states, S^D
    of them for variables of S states, so this is for small layers: 2^10 for ten Bernoulli variables.
    """

    @property
    def has_enumerate_support(self) -> bool:
        return self.base_dist.has_enumerate_support

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All joint states, (S^D, *batch, D, *event) if `expand`, else with batch dimensions of size one."""
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
    """One-hot variable whose draw is tensor operations only: torch's `one_hot` reads a value back, no graph can."""

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

    Linear in b, between 0 and 1 too.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        logits = _checked(self, value).logits
        # Beyond its threshold softplus is the identity: at 40 that is exact in float64, which torch's 20 is not.
        return torch.addcmul(-F.softplus(once(logits), threshold=40.0), value, logits).sum(-1)


class Pixels(dist.Independent):
    """Π_d Bernoulli(x_d; σ(φ_d)) over the last dimension, for logits as many as the data.

    The sign changes after the sum over d, two passes fewer over (…, X).
    """

    def log_prob(self, value: Tensor) -> Tensor:
        logits, value = torch.broadcast_tensors(_checked(self, value).logits, value)
        return -F.binary_cross_entropy_with_logits(logits, value, reduction="none").sum(-1)


def once(parameters: Tensor) -> Tensor:
    """Parameters (…, D) without the repetitions of `expand`: size 1 in the dimensions before the last that repeat."""
    repeats = [size > 1 and stride == 0 for size, stride in zip(parameters.shape, parameters.stride(), strict=True)]
    if not any(repeats[:-1]):
        return parameters
    return parameters[tuple(slice(0, 1) if repeat else slice(None) for repeat in repeats[:-1])]


def _checked(fn: dist.Independent, value: Tensor) -> dist.TorchDistribution:
    """The distribution of one variable, which checks the value where validation is on."""
    base = fn.base_dist
    if base._validate_args:
        base._validate_sample(value)
    return base
