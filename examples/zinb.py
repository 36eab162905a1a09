"""Counts of genes: a latent state for each cell, and zero-inflated negative binomial counts.

After Pyro's tutorial "Single-cell annotation (scANVI)", its likelihood. `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import constraints

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (x,): x (20, 6) counts, a third of them zero."""
    torch.manual_seed(seed)
    rate = torch.tensor([[1.0, 8.0], [8.0, 1.0]]).repeat_interleave(3, 1)[torch.arange(20) % 2]
    x = torch.poisson(rate) * torch.bernoulli(torch.full((20, 6), 0.7))
    decoder, encoder = nn.Linear(2, 12), nn.Linear(6, 4)

    def model(x):
        pyro.module("decoder", decoder)
        theta = pyro.param("inverse_dispersion", 5.0 * torch.ones(6), constraint=constraints.positive)
        with pyro.plate("cells", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            size = pyro.sample("size", dist.LogNormal(1.0, 0.5))
            gate, mean = decoder(z).chunk(2, -1)
            logits = (size[..., None] * mean.softmax(-1) + 1e-5).log() - theta.log()
            law = dist.ZeroInflatedNegativeBinomial(theta, logits=logits, gate_logits=gate)
            pyro.sample("x", law.to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("cells", len(x)):
            loc, log_scale = encoder((1 + x).log()).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
            spread = pyro.param("spread", torch.tensor(0.3), constraint=constraints.positive)
            pyro.sample("size", dist.LogNormal((1 + x.sum(-1)).log(), spread))

    return model, guide, (x,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam(lr=0.02)", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
