"""A hidden Markov model: a chain of discrete states behind a sequence, summed out; its two matrices are latent.

After Pyro's example "Hidden Markov Models". `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoDelta

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (x,): x (8,) numbers that switch between two levels."""
    torch.manual_seed(seed)
    x = torch.tensor([-1.0, -1, -1, 1, 1, 1, -1, -1]) + 0.3 * torch.randn(8)

    @config_enumerate
    def model(x):
        rows = pyro.sample("transition", dist.Dirichlet(torch.tensor([[3.0, 1.0], [1.0, 3.0]])).to_event(1))
        levels = pyro.sample("levels", dist.Normal(torch.tensor([-0.5, 0.5]), 1.0).to_event(1))
        state = torch.tensor(0)
        for t in pyro.markov(range(len(x))):
            state = pyro.sample(f"state_{t}", dist.Categorical(rows[state]))
            pyro.sample(f"x_{t}", dist.Normal(levels[state], 0.4), obs=x[t])

    return model, AutoDelta(poutine.block(model, expose=["transition", "levels"])), (x,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam(lr=0.02)", make_elbo("enum", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
