"""A Gaussian mixture with a guide of its own for every assignment; locations are indexed, `locs[a]`.

After Pyro's tutorial "Gaussian Mixture Model", its guide written by hand. `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (data,): 20 numbers around −3, 0 and 3."""
    torch.manual_seed(seed)
    data = 3.0 * (torch.arange(20) % 3 - 1) + 0.5 * torch.randn(20)

    def model(data):
        with pyro.plate("components", 3):
            locs = pyro.sample("locs", dist.Normal(0.0, 5.0))
        with pyro.plate("data", len(data)):
            a = pyro.sample("assignment", dist.Categorical(torch.ones(3) / 3))
            pyro.sample("obs", dist.Normal(locs[a], 1.0), obs=data)

    def guide(data):
        locs = pyro.param("locs_q", torch.tensor([-1.0, 0.0, 1.0]))
        scales = pyro.param("scales_q", 0.5 * torch.ones(3), constraint=constraints.positive)
        logits = pyro.param("logits_q", torch.zeros(len(data), 3))
        with pyro.plate("components", 3):
            pyro.sample("locs", dist.Normal(locs, scales))
        with pyro.plate("data", len(data)):
            pyro.sample("assignment", dist.Categorical(logits=logits))

    return model, guide, (data,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
