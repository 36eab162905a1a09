"""What is timed: the table `CASES`, name → `Case`, one step on a batch x (B, X) of binary data.

Data are random bits with the density of the real set: the time of a step depends on sizes alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """Sizes of a model and of a batch. latent: a family of `models.LATENTS`."""

    name: str
    data_size: int
    hidden: int
    latents: int
    batch: int
    latent: str

    @property
    def sizes(self) -> dict:
        """The arguments of `models.VAE` and of the guides."""
        return {
            "data_size": self.data_size,
            "hidden": (self.hidden,),
            "layers": (self.latents,),
            "latent": self.latent,
        }

    def data(self) -> Tensor:
        """A batch x (B, X)."""
        return (torch.rand(self.batch, self.data_size, generator=torch.Generator().manual_seed(0)) < 0.15).float()


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case("digits", 64, 128, 16, 64, "normal"),
        Case("mnist-normal", 784, 400, 50, 256, "normal"),
        Case("mnist-bernoulli", 784, 400, 200, 256, "bernoulli"),
    )
}
