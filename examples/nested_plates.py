"""Schools in districts: two nested plates, the inner one subsampled.

After Pyro's tutorial "SVI Part II", subsampling. `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (x,): x (12, 3), twelve schools in three districts, of which six are seen a step."""
    torch.manual_seed(seed)
    x = torch.tensor([-1.0, 0.0, 1.0]) + 0.3 * torch.randn(12, 3)

    def model(x):
        with pyro.plate("districts", 3, dim=-1):
            mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
            with pyro.plate("schools", 12, subsample_size=6, dim=-2) as at:
                effect = pyro.sample("effect", dist.Normal(mean, 0.5))
                pyro.sample("x", dist.Normal(effect, 0.3), obs=x[at])

    def guide(x):
        loc = pyro.param("loc", torch.zeros(3))
        scale = pyro.param("scale", 0.3 * torch.ones(3), constraint=constraints.positive)
        own = pyro.param("own", torch.zeros(12, 3))
        with pyro.plate("districts", 3, dim=-1):
            pyro.sample("mean", dist.Normal(loc, scale))
            with pyro.plate("schools", 12, subsample_size=6, dim=-2) as at:
                pyro.sample("effect", dist.Normal(own[at], 0.3))

    return model, guide, (x,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam(lr=0.02)", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
