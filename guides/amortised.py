"""The guide with the layers of `models.VAE` in reverse order: q(z1 | x) q(z2 | z1) … q(zL | z_{L−1})."""

from itertools import pairwise

import pyro
from torch import Tensor, nn

from guides.base import LayeredGuide
from models.trunks import Trunk


class AmortizedGuide(LayeredGuide):
    """Bottom-up amortised guide.

    z_1 | x ~ family(encoder(x − mean)),   z_l | z_{l−1} ~ family(network_l(z_{l−1})),   l = 2 … L

    A value of z_l has shape (…, B, D), or one-hot (…, B, N, M). See `LayeredGuide` for the arguments.

    References:
        Auto-encoding variational Bayes. D. P. Kingma, M. Welling, 2014.
        Neural variational inference and learning in belief networks. A. Mnih, K. Gregor, 2014.
    """

    def make_networks(self, trunk: Trunk) -> list[nn.Module]:
        encoder = trunk.encoder(self.latents[0].standard())
        pairs = pairwise(self.latents)
        return [encoder, *(trunk.between(below.width, above.standard()) for below, above in pairs)]

    def draw(self, x: Tensor) -> None:
        features = x
        for site, latent, network in zip(self.latent_sites, self.latents, self.networks, strict=True):
            z = pyro.sample(site, latent(network(features)))  # (…, B, D)
            features = latent.features(z)
