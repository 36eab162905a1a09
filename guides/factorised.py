"""Every layer from the data alone: q(zL | x) … q(z2 | x) q(z1 | x), independent given x."""

import pyro
from torch import Tensor, nn

from guides.base import LayeredGuide
from models.trunks import Trunk


class FactorisedGuide(LayeredGuide):
    """Amortised guide whose layers are independent given x, each with its own encoder.

    z_l | x ~ family(encoder_l(x − mean)),   l = 1 … L

    It cannot follow the posterior's dependence between layers, so its bound is looser than the bottom-up guide's; in
    return no draw enters another layer's parameters, and a closed-form KL is right for several layers too. See
    `LayeredGuide` for the arguments.
    """

    def make_networks(self, trunk: Trunk) -> list[nn.Module]:
        return [trunk.encoder(latent.standard()) for latent in self.latents]

    def draw(self, x: Tensor) -> None:
        layers = list(zip(self.latent_sites, self.latents, self.networks, strict=True))
        # Top down like the model: Pyro's bound with a closed-form KL asks for one order in both programs.
        for site, latent, network in reversed(layers):
            pyro.sample(site, latent(network(x)))  # (…, B, D)
