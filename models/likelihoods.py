"""Likelihoods p(x | z1), one entry of `LIKELIHOODS` each. A likelihood turns the decoder's output into a distribution.

    likelihood(raw)      : raw (…, X) -> distribution with batch shape (…) and event shape (X,)
    likelihood.mean(raw) : raw (…, X) -> E[x | z1], (…, X), in the units of the data; used for pictures
    likelihood.raw(mean) : mean (X,)  -> the raw numbers with that mean; the initial bias of the decoder

A likelihood is a module because it may have parameters. `kinds` lists the kinds of data that it has a density for.
"""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from models.distributions import Normals, Pixels
from models.latents import positive


class Likelihood(nn.Module):
    """Base class of every entry of `LIKELIHOODS`."""

    kinds: tuple[str, ...] = ()
    """Kinds of `pathscore.data.Dataset` that it has a density for, after binarisation: "binary", "unit", "real"."""

    def forward(self, raw: Tensor) -> dist.TorchDistribution:
        """The distribution of x with the decoder's output `raw` (…, X)."""
        raise NotImplementedError

    def mean(self, raw: Tensor) -> Tensor:
        """E[x | z1], same shape as `raw`."""
        raise NotImplementedError

    def raw(self, mean: Tensor) -> Tensor:
        """The raw numbers whose mean is `mean`, the inverse of `mean()`."""
        raise NotImplementedError

    @classmethod
    def independent(cls, x: Tensor) -> dist.TorchDistribution:
        """The distribution of rows with independent values, fitted to x (N, X); event shape (X,)."""
        raise NotImplementedError


class Bernoulli(Likelihood):
    """Binary pixels, p(x | z1) = Π Bernoulli(x; σ(raw)): no parameters of its own."""

    kinds = ("binary",)

    def forward(self, raw: Tensor) -> dist.TorchDistribution:
        return Pixels(dist.Bernoulli(logits=raw), 1)

    def mean(self, raw: Tensor) -> Tensor:
        return raw.sigmoid()

    def raw(self, mean: Tensor) -> Tensor:
        """Log-odds of `mean` clipped to .001–.999, so that a pixel that is always 0 does not start at −∞."""
        return mean.clamp(0.001, 0.999).logit()

    @classmethod
    def independent(cls, x: Tensor) -> dist.TorchDistribution:
        """Half a count of each value is added, so that no pixel is certain."""
        return dist.Bernoulli((x.sum(0) + 0.5) / (len(x) + 1)).to_event(1)


class Normal(Likelihood):
    """Real pixels, p(x | z1) = Π N(x; raw, σ²) with one learned σ, which starts at ½.

    All pixels share one σ. With a σ for each pixel, a pixel that never changes (the corners of every digit) would drive
    its σ to zero and the density to infinity.

    References:
        Simple and effective VAE training with calibrated decoders. O. Rybkin, K. Daniilidis, S. Levine, 2021.
    """

    kinds = ("binary", "unit", "real")

    def __init__(self):
        super().__init__()
        self.raw_scale = nn.Parameter(torch.tensor(math.log(math.expm1(0.5))))

    def forward(self, raw: Tensor) -> dist.TorchDistribution:
        return Normals(dist.Normal(raw, positive(self.raw_scale)), 1)

    def mean(self, raw: Tensor) -> Tensor:
        return raw

    def raw(self, mean: Tensor) -> Tensor:
        return mean

    @classmethod
    def independent(cls, x: Tensor) -> dist.TorchDistribution:
        """One σ for all values, as in the likelihood itself."""
        return dist.Normal(x.mean(0), (x - x.mean(0)).square().mean().sqrt()).to_event(1)


LIKELIHOODS: dict[str, type[Likelihood]] = {"bernoulli": Bernoulli, "normal": Normal}
