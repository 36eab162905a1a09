"""The networks of a VAE as modules of tensors, for `torch.export`.

`networks(model, guide) -> {name: (module, example of its input)}`.
"""

from typing import Any

from torch import Tensor, nn

from pathscore.trained.laws import CHANCES, base_of


class Encoder(nn.Module):
    """x (N, X) → the laws of the layers that depend on the data alone, as "z1.mean" and "z1.scale", or "z1.probs"."""

    def __init__(self, guide: Any) -> None:
        super().__init__()
        self.guide = guide

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        guide, found = self.guide, {}
        layers = zip(guide.latent_sites, guide.latents, guide.networks, strict=True)
        for site, latent, network in list(layers)[: guide.direct]:
            law = latent(network(x - guide.x_mean))
            if isinstance(base_of(law), CHANCES):
                found[f"{site}.probs"] = law.mean
            else:
                found |= {f"{site}.mean": law.mean, f"{site}.scale": law.variance.sqrt()}
        return found


class Decoder(nn.Module):
    """z1, (N, D) or one-hot (N, M, classes) → E[x | z1], (N, X)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, z1: Tensor) -> Tensor:
        return self.model.decode(z1)


def networks(model: Any, guide: Any) -> dict[str, tuple[nn.Module, Tensor]]:
    """Encoder and decoder, each with an example of its input."""
    like = guide.x_mean
    x, z1 = like.expand(2, -1).clone(), like.new_zeros(2, *model.latents[0].event_shape)
    return {"encoder": (Encoder(guide), x), "decoder": (Decoder(model), z1)}
