"""Guides for weights that all data points share: one Normal over a vector of D weights, in two kinds of covariance.

    COVARIANCES[name](site, size)   is the guide: called with the model's arguments, it draws the site

Both start at N(0, I).
"""

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class SharedNormal(nn.Module):
    """Base class: q(w) = N(μ, Σ) at the site `site`, w of `size` numbers. `law()` is q."""

    def __init__(self, site: str, size: int):
        super().__init__()
        self.site = site
        self.loc = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.zeros(size))

    def law(self) -> dist.TorchDistribution:
        raise NotImplementedError

    def forward(self, *args: torch.Tensor) -> None:
        """The program; the data do not enter."""
        pyro.module("guide", self)
        pyro.sample(self.site, self.law())


class DiagonalNormal(SharedNormal):
    """Independent weights: Σ = diag(e^(2 log σ))."""

    def law(self) -> dist.TorchDistribution:
        return dist.Normal(self.loc, self.log_scale.exp()).to_event(1)


class FullNormal(SharedNormal):
    """Dependent weights: Σ = L Lᵀ, L lower triangular with the diagonal e^(log σ)."""

    def __init__(self, site: str, size: int):
        super().__init__(site, size)
        self.below = nn.Parameter(torch.zeros(size, size))

    def law(self) -> dist.TorchDistribution:
        root = self.below.tril(-1) + self.log_scale.exp().diag_embed()
        return dist.MultivariateNormal(self.loc, scale_tril=root)


COVARIANCES: dict[str, type[SharedNormal]] = {"diagonal": DiagonalNormal, "full": FullNormal}
