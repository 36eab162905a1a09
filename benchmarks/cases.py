"""What is timed: the table `CASES`, name → `Case`, one step on a batch x (B, X) of binary data.

Data are random bits with the same share of ones as the real set, because the time of a step depends only on sizes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """Sizes of a model and of a batch.

    hidden: width of the one hidden layer of each network, None for an affine map. latent: a family of
    `models.LATENTS`. estimator: of `pathscore.ESTIMATORS`, None for the objective's own gradient. evaluations: passes
    through the decoder that a step makes per data point.
    """

    name: str
    data_size: int
    hidden: int | None
    latents: int
    batch: int
    latent: str
    estimator: str | None = None
    evaluations: int = 1

    @property
    def raw(self) -> int:
        """Numbers that the encoder gives per data point."""
        return self.latents * (2 if self.latent == "normal" else 1)

    @property
    def sizes(self) -> dict:
        """The arguments of `models.VAE` and of the guides."""
        trunk = {"trunk": "linear"} if self.hidden is None else {"hidden": (self.hidden,)}
        return {"data_size": self.data_size, "layers": (self.latents,), "latent": self.latent, **trunk}

    def data(self) -> Tensor:
        """A batch x (B, X)."""
        generator = torch.Generator("cpu").manual_seed(0)
        u = torch.rand(self.batch, self.data_size, generator=generator, device="cpu")
        return (u < 0.15).float().to(torch.get_default_device())


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case("digits", 64, 128, 8, 128, "normal"),
        Case("mnist-normal", 784, 400, 50, 256, "normal"),
        Case("mnist-bernoulli", 784, None, 200, 100, "bernoulli", "disarm", 2),
        Case("wide", 784, 2048, 128, 1024, "normal"),
    )
}
