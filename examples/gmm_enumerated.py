"""A Gaussian mixture whose assignments the guide leaves out: they are summed out.

After Pyro's tutorial "Gaussian Mixture Model". `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoDelta

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (data,): 40 numbers around −3 and 3."""
    torch.manual_seed(seed)
    data = torch.cat([torch.randn(20) - 3, torch.randn(20) + 3])

    @config_enumerate
    def model(data):
        weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(2)))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
        with pyro.plate("components", 2):
            locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(data)):
            assignment = pyro.sample("assignment", dist.Categorical(weights))
            pyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)

    def start(site):
        starts = {"weights": torch.ones(2) / 2, "scale": torch.tensor(2.0), "locs": torch.tensor([-1.0, 1.0])}
        return starts[site["name"]]

    guide = AutoDelta(poutine.block(model, expose=["weights", "locs", "scale"]), init_loc_fn=start)
    return model, guide, (data,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam", make_elbo("enum", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
