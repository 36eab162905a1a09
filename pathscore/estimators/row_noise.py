"""Estimators of a site of weights that all data points share: each data point gets noise of its own.

W ~ N(μ, σ²) is shared by B data points, and the cost is a sum over them. With one draw of W the variance of the
gradient has a part that does not fall with B: the covariance of two data points. These estimators leave the marginal
law of every data point as it is, so the mean is unchanged, and take that covariance away.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from pathscore.errors import UsageError
from pathscore.estimators.families import family_name
from pathscore.estimators.pathwise import Pathwise
from pathscore.estimators.perturbed import Perturbed, Product, Rule, channels, perturbed, plain


class _RowNoise(Pathwise):
    """Pathwise, with a draw whose rows differ in linear layers."""

    perturbs_rows = True
    rule: ClassVar[type[Rule]]

    def __init__(self) -> None:
        super().__init__()

    def refusal(self, fn: Any, particles: int = 1) -> str | None:
        if self.families is not None and family_name(fn) not in self.families:
            return f"{self.name} needs independent {' or '.join(self.families)} weights, not {family_name(fn)}"
        if fn.batch_shape.numel() > 1 or not fn.event_shape:
            return f"{self.name} needs weights that all data points share: one event of a site in no plate"
        return super().refusal(fn, particles)

    def sample(self, fn: Any) -> tuple[Tensor, Any]:
        value = fn.rsample()
        return perturbed(value, fn.mean.expand(value.shape), self.rule(fn.variance.expand(value.shape))), None

    def score_parts(self, fn: Any, value: Tensor) -> Any:
        return super().score_parts(fn, plain(value))

    def log_prob(self, fn: Any, value: Tensor) -> Tensor:
        return super().log_prob(fn, plain(value))


def _signs(*shape: int, like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(0.5) * 2 - 1


class _Signs(Rule):
    """W_n = μ + (W − μ) ⊙ r_n s_nᵀ, r_n and s_n random signs; the same W_n wherever the weight is used."""

    word = "flipout"

    def __init__(self, variance: Tensor) -> None:
        super().__init__(variance)
        self.drawn: dict[tuple[str, int], Tensor] = {}

    def signs(self, side: str, rows: int, count: int, like: Tensor) -> Tensor:
        """The signs of each row for the inputs or the outputs, (rows, count, 1, …)."""
        if (side, rows) not in self.drawn:
            self.drawn[side, rows] = _signs(rows, count, like=like)
        found = self.drawn[side, rows]
        if like.dim() == 4:
            return found[..., None, None]
        return found.reshape(rows, *(1,) * (like.dim() - 2), count)

    def product(self, product: Product, x: Tensor, weight: Perturbed) -> Tensor:
        if x.dim() < 2:
            return product(x, plain(weight))
        mean = product(x, weight.loc)
        inputs = x.shape[1] if x.dim() == 4 else x.shape[-1]
        s = self.signs("in", len(x), inputs, x)
        r = self.signs("out", len(x), len(weight), mean)
        return mean + r * product(x * s, plain(weight) - weight.loc)

    def shift(self, like: Tensor, bias: Perturbed) -> Tensor:
        if like.dim() < 2:
            return plain(bias)
        r = self.signs("out", len(like), len(bias), like)
        return channels(bias.loc, like) + r * channels(plain(bias) - bias.loc, like)


class Flipout(_RowNoise):
    """Each data point n takes W_n = μ + (W − μ) ⊙ r_n s_nᵀ with random signs r_n, s_n, for two products instead of one.

    W_n has the law of W, which is symmetric about its mean in each element; the deviations of two data points are
    uncorrelated. For linear layers, matrix products and 2-D convolutions whose input has a data point in each row.

    References:
        Flipout: Efficient Pseudo-Independent Weight Perturbations on Mini-Batches. Wen, Vicol, Ba, Tran, Grosse, 2018.
    """

    name = "flipout"
    formula = "x_n μ + ((x_n ⊙ s_n)(W − μ)) ⊙ r_n, s_n and r_n random signs"
    reference = "Wen, Vicol, Ba, Tran & Grosse 2018"
    families = ("normal", "laplace")
    rule = _Signs


class _Outputs(Rule):
    """x_n W ~ N(x_n μ, x_n² σ²), drawn for each row; right where the weight meets the rows once."""

    word = "local-reparameterisation"

    def __init__(self, variance: Tensor) -> None:
        super().__init__(variance)
        self.used = False

    def once(self, x: Tensor) -> None:
        """Refuse what shares the weight within a row, or uses it twice."""
        if x.dim() != 2:
            raise UsageError(
                f"{self.word} draws each output on its own, and the positions of an input of {x.dim()} dimensions "
                "share the weight: use flipout"
            )
        if self.used:
            raise UsageError(f"{self.word} serves a weight that is used once, and here it is used again: use flipout")
        self.used = True

    def product(self, product: Product, x: Tensor, weight: Perturbed) -> Tensor:
        self.once(x)
        variance = product(x.square(), self.variance.reshape(weight.shape))
        return _drawn(product(x, weight.loc), variance)

    def shift(self, like: Tensor, bias: Perturbed) -> Tensor:
        self.once(like)
        return _drawn(bias.loc.expand_as(like), self.variance.reshape(bias.shape).expand_as(like))


def _drawn(mean: Tensor, variance: Tensor) -> Tensor:
    # Of a row of zeros the variance is 0, where the root has no derivative.
    return mean + variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt() * torch.randn_like(mean)


class LocalReparameterisation(_RowNoise):
    """Each data point draws its outputs: x_n W ~ N(x_n μ, x_n² σ²), all independent, where W ~ N(μ, σ²).

    For linear layers and matrix products whose input is (data points, inputs), each weight used once. The rows of a
    convolution share the weight among the positions of an image: `flipout` serves it.

    References:
        Variational Dropout and the Local Reparameterization Trick. Kingma, Salimans, Welling, 2015.
    """

    name = "local-reparameterisation"
    formula = "x_n W ~ N(x_n μ, x_n² σ²), drawn for each n"
    reference = "Kingma, Salimans & Welling 2015"
    families = ("normal",)
    rule = _Outputs
