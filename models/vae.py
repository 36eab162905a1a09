"""The deep latent variable model p(z_L) … p(z1 | z2) p(x | z1), as a Pyro program.

    model(x)          : x (B, X) is observed
    model(size=B)     : x is drawn, a sample from the prior

    z_L ~ family(prior)                       the standard member of the family, or learned
    z_l | z_{l+1} ~ family(network_l(z_{l+1}))   l = L−1 … 1
    x | z_1 ~ likelihood(decoder(z_1))

Sites are "zL", …, "z1" (z1 next to the data) and "x", inside `plate("data", B, dim=-1)`. A value of z_l has shape
(…, B, D), for `categorical` (…, B, N, M), with particles, rows or enumerated states in front. With one layer this is
the model of a variational autoencoder. With several layers of Bernoulli latents and the linear trunk it is a sigmoid
belief net.

References:
    Auto-encoding variational Bayes. D. P. Kingma, M. Welling, 2014.
    Connectionist learning of belief networks. R. M. Neal, 1992.
"""

from collections.abc import Sequence
from itertools import pairwise

import pyro
import torch
from torch import Tensor, nn

from models.checks import require_rows, size_of, sizes
from models.latents import latent_layers
from models.likelihoods import LIKELIHOODS
from models.trunks import make_trunk
from pathscore.errors import unknown

PRIORS = ("fixed", "learned")


class VAE(nn.Module):
    """Deep latent variable model with L layers of latent variables, drawn top down.

    data_size: X, numbers per data point (the default is that of the digits). shape: their layout, (C, H, W) for `conv`.
    latent: family, one of `LATENTS`. layers: sizes of z1, …, zL. classes: M, for `categorical` only.
    likelihood: one of `LIKELIHOODS`. trunk, hidden, activation: the networks, see `TRUNKS`.
    prior: "fixed" at the family's standard member, or "learned" from there.
    x_mean: (X,) mean of the data, whose log-odds are the initial bias of the decoder; ½ everywhere if not given.

    Raises `UsageError` for a name that is in no table or a size that does not fit.
    """

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
        if likelihood not in LIKELIHOODS:
            raise unknown("likelihood", likelihood, LIKELIHOODS)
        layers, hidden, self.data_size = (
            sizes("layers", layers),
            sizes("hidden", hidden),
            size_of("data_size", data_size),
        )
        self.latents = latent_layers(latent, layers, classes)
        self.latent_sites = tuple(f"z{level}" for level in range(1, len(layers) + 1))
        self.likelihood = LIKELIHOODS[likelihood]()
        networks = make_trunk(trunk, data_size, shape, hidden, activation)
        x_mean = torch.full((data_size,), 0.5) if x_mean is None else x_mean
        self.decoder = networks.decoder(self.latents[0].width, self.likelihood.raw(x_mean))
        self.between = nn.ModuleList(
            networks.between(above.width, below.standard()) for below, above in pairwise(self.latents)
        )
        if prior not in PRIORS:
            raise unknown("prior", prior, PRIORS)
        standard = self.latents[-1].standard()
        if prior == "learned":
            self.prior = nn.Parameter(standard)
        else:
            self.register_buffer("prior", standard)

    def forward(self, x: Tensor | None = None, size: int | None = None) -> Tensor:
        """The program, on x (B, X), or on `size` draws where x is None. Returns x (…, B, X)."""
        pyro.module("model", self)
        if x is not None:
            require_rows(x, self.data_size, self.prior)
        rows = (size or 1) if x is None else x.shape[-2]
        with pyro.plate("data", rows, dim=-1, device=str(self.prior.device)):
            raw = self.prior
            for site, latent, network in self.top_down():
                z = pyro.sample(site, latent(raw))  # (…, B, D)
                raw = network(latent.features(z))
            return pyro.sample("x", self.likelihood(raw), obs=x)

    def top_down(self) -> list[tuple]:
        """(site, family, network to the layer below) of zL … z1; the network below z1 is the decoder."""
        networks = [self.decoder, *self.between]
        return list(zip(self.latent_sites, self.latents, networks, strict=True))[::-1]

    def decode(self, z1: Tensor) -> Tensor:
        """E[x | z1]: (…, D) or one-hot (…, N, M) -> (…, X), in the units of the data."""
        return self.likelihood.mean(self.decoder(self.latents[0].features(z1)))
