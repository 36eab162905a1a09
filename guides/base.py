"""The base class of the guides: the constructor, the plate, and access to the distributions of a guide.

    guide(x)          : the Pyro program q(z | x), for x (B, X): sites "z1", …, "zL" in `plate("data", B)`
    guide.encode(x)   : {"z1": distribution, …} of one pass, each with batch shape (B,)

A guide takes the same keyword arguments as the model, so that one dictionary builds both. To add a guide, write a
subclass of `LayeredGuide`: `make_networks` builds the network of each layer, `draw` draws the layers. Enter it in
`GUIDES`.
"""

from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from models.checks import require_rows, size_of, sizes
from models.latents import latent_layers
from models.trunks import Trunk, make_trunk
from pathscore.errors import UsageError


class LayeredGuide(nn.Module):
    """Base class of the guides for layered models: one amortised family per layer.

    Arguments as `models.VAE`; `likelihood` and `prior` concern the model only and are not used.
    x_mean: (X,) mean of the data, which is subtracted from the encoder's input; ½ everywhere if not given.

    Raises `UsageError` for a name that is in no table or a size that does not fit.
    """

    x_mean: Tensor

    def __init__(
        self,
        data_size: int = 64,
        *,
        latent: str = "normal",
        layers: Sequence[int] = (16,),
        likelihood: str = "bernoulli",
        trunk: str = "mlp",
        hidden: Sequence[int] = (128,),
        activation: str = "tanh",
        classes: int = 10,
        prior: str = "fixed",
        shape: tuple[int, ...] | None = None,
        x_mean: Tensor | None = None,
    ):
        super().__init__()
        layers, hidden, self.data_size = (
            sizes("layers", layers),
            sizes("hidden", hidden),
            size_of("data_size", data_size),
        )
        self.latents = latent_layers(latent, layers, classes)
        self.latent_sites = tuple(f"z{level}" for level in range(1, len(layers) + 1))
        self.networks = nn.ModuleList(self.make_networks(make_trunk(trunk, data_size, shape, hidden, activation)))
        x_mean = torch.full((data_size,), 0.5) if x_mean is None else x_mean
        self.register_buffer("x_mean", x_mean.to(torch.get_default_dtype(), copy=True))

    def make_networks(self, trunk: Trunk) -> list[nn.Module]:
        """The networks of z1 … zL."""
        raise NotImplementedError

    @property
    def direct(self) -> int:
        """How many layers, from z1 upwards, depend on the data alone: their networks read x."""
        return 1

    def draw(self, x: Tensor) -> None:
        """Sample z1 … zL given the centred data x (B, X). It is called inside the plate."""
        raise NotImplementedError

    def forward(self, x: Tensor | None = None, size: int | None = None) -> None:
        """The program. x is required; `size` is accepted because the model takes it."""
        if x is None:
            raise UsageError("a guide needs data: call guide(x); for samples from the prior call the model")
        require_rows(x, self.data_size, self.x_mean)
        pyro.module("guide", self)
        self.sample(x)

    def sample(self, x: Tensor) -> None:
        """The program without registering its parameters in the parameter store."""
        with pyro.plate("data", x.shape[-2], dim=-1, device=str(x.device)):
            self.draw(x - self.x_mean)

    def encode(self, x: Tensor) -> dict:
        """The distributions of one pass by site. Those above z1 are conditioned on the values drawn in that pass."""
        nodes: dict[str, Any] = dict(poutine.trace(self.sample).get_trace(x).nodes)
        return {site: nodes[site]["fn"] for site in self.latent_sites}
