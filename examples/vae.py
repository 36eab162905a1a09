"""A variational autoencoder: z ~ N(0, I), x | z ~ Bernoulli(network), an encoder for every data point.

After Pyro's tutorial "Variational Autoencoders". `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (x,), x (32, 16) binary pictures of two blocks."""
    torch.manual_seed(seed)
    blocks = torch.rand(32, 2).lt(0.5).float().repeat_interleave(8, 1)
    x = torch.bernoulli(0.1 + 0.8 * blocks)
    decoder = nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 16))
    encoder = nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4))

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide, (x,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
