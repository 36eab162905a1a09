"""Attend, infer, repeat, in small: up to two objects at latent places in a strip of pixels, each present or not.

After Pyro's tutorial "Attend Infer Repeat". `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pathscore import SVI, make_elbo

PIXELS, STEPS = 12, 2


def blob(where):
    """A bump of light at place `where` (…,) on the strip: (…, PIXELS)."""
    return torch.exp(-0.5 * ((torch.linspace(-2, 2, PIXELS) - where.unsqueeze(-1)) / 0.3) ** 2)


def build(seed: int = 0):
    """Model, guide and arguments (x,): 16 strips of 12 pixels with none, one or two objects."""
    torch.manual_seed(seed)
    present = torch.rand(16, STEPS) < torch.tensor([0.8, 0.4])
    x = (blob(torch.randn(16, STEPS)) * present.unsqueeze(-1)).sum(1) + 0.1 * torch.randn(16, PIXELS)
    encoder = nn.Sequential(nn.Linear(PIXELS + 2, 16), nn.Tanh(), nn.Linear(16, 3))

    def model(x):
        with pyro.plate("data", len(x)):
            alive, canvas = torch.ones(()), torch.zeros(PIXELS)
            for t in range(STEPS):
                alive = pyro.sample(f"present_{t}", dist.Bernoulli(0.5 * alive))
                where = pyro.sample(f"where_{t}", dist.Normal(0.0, 1.0))
                canvas = canvas + alive.unsqueeze(-1) * blob(where)
            pyro.sample("x", dist.Normal(canvas, 0.3).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            alive, where = torch.ones(len(x)), torch.zeros(len(x))
            for t in range(STEPS):
                shape = torch.broadcast_shapes(alive.shape, where.shape)
                state = [x.expand(*shape, PIXELS), alive.expand(shape)[..., None], where.expand(shape)[..., None]]
                raw = encoder(torch.cat(state, -1))
                p = (0.02 + 0.96 * raw[..., 0].sigmoid()) * alive
                alive = pyro.sample(f"present_{t}", dist.Bernoulli(p))
                where = pyro.sample(f"where_{t}", dist.Normal(raw[..., 1], raw[..., 2].exp()))

    return model, guide, (x,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
