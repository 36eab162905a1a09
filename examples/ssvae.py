"""A semi-supervised VAE: a class y and a style z behind every picture, the classes not given here.

After Pyro's tutorial "The Semi-Supervised VAE". `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (x,), x (24, 12) binary pictures of three classes."""
    torch.manual_seed(seed)
    classes = torch.randint(3, (24,))
    x = torch.bernoulli(0.1 + 0.8 * torch.eye(3)[classes].repeat_interleave(4, 1))
    decoder = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 12))
    encoder_y = nn.Linear(12, 3)
    encoder_z = nn.Linear(15, 4)

    def model(x, y=None):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(3)), obs=y)
            shape = torch.broadcast_shapes(z.shape[:-1], y.shape[:-1])
            both = torch.cat([z.expand(*shape, 2), y.expand(*shape, 3)], -1)
            pyro.sample("x", dist.Bernoulli(logits=decoder(both)).to_event(1), obs=x)

    def guide(x, y=None):
        pyro.module("encoder_y", encoder_y)
        pyro.module("encoder_z", encoder_z)
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=encoder_y(x)))
            both = torch.cat([x.expand(*y.shape[:-1], 12), y], -1)
            loc, log_scale = encoder_z(both).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide, (x,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam", make_elbo("enum", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
