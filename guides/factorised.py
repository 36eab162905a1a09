"""The guide whose layers depend on the data only: q(zL | x) … q(z2 | x) q(z1 | x), independent given x."""

import pyro
from torch import Tensor, nn

from guides.base import LayeredGuide
from models.trunks import Trunk


class FactorisedGuide(LayeredGuide):
    """Amortised guide whose layers are independent given x, each with its own encoder.

    z_l | x ~ family(encoder_l(x − mean)),   l = 1 … L

    It cannot represent the posterior's dependence between layers, so its bound is looser than that of the bottom-up
    guide. In return no draw enters the parameters of another layer, so a closed-form KL is correct for several layers
    too. See `LayeredGuide` for the arguments.
    """

    def make_networks(self, trunk: Trunk) -> list[nn.Module]:
        return [trunk.encoder(latent.standard()) for latent in self.latents]

    @property
    def direct(self) -> int:
        return len(self.latents)

    def draw(self, x: Tensor) -> None:
        layers = list(zip(self.latent_sites, self.latents, self.networks, strict=True))
        # In the order of the model, from the top down: Pyro's bound with a closed-form KL needs it.
        for site, latent, network in reversed(layers):
            pyro.sample(site, latent(network(x)))  # (…, B, D)
