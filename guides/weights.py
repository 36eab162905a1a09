"""A guide for the weights of a network: independent Normals at every site of weights.

WeightGuide(shapes)   shapes: site → shape;   called with the model's arguments, it draws every site
"""

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class WeightGuide(nn.Module):
    """q(W) = Π N(μ, σ²), element by element; the means start as torch starts a layer, σ at `scale`."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], scale: float = 0.03):
        super().__init__()
        self.sites = {name: name.replace(".", "_") for name in shapes}
        self.loc = nn.ParameterDict({self.sites[name]: started(shape) for name, shape in shapes.items()})
        logs = {self.sites[name]: torch.full(shape, scale).log() for name, shape in shapes.items()}
        self.log_scale = nn.ParameterDict(logs)

    def forward(self, *args: torch.Tensor) -> None:
        """The program; the data do not enter."""
        pyro.module("guide", self)
        for site, key in self.sites.items():
            loc, scale = self.loc[key], self.log_scale[key].exp()
            pyro.sample(site, dist.Normal(loc, scale).to_event(loc.dim()))


def started(shape: tuple[int, ...]) -> torch.Tensor:
    """Uniform in ± 1/√fan-in for a matrix of weights, zeros for a bias."""
    return torch.zeros(shape) if len(shape) < 2 else (2 * torch.rand(shape) - 1) / shape[1] ** 0.5
