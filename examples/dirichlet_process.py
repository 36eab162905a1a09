"""A Dirichlet process mixture, truncated: sticks are broken, and every point has an assignment of its own.

After Pyro's tutorial "Dirichlet Process Mixture Models". `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints
from torch.nn.functional import pad, softmax

from pathscore import SVI, make_elbo

T = 4


def weights_of(beta):
    """Weights (T,) of the sticks (T − 1,)."""
    return pad(beta, (0, 1), value=1) * pad((1 - beta).cumprod(-1), (1, 0), value=1)


def build(seed: int = 0):
    """Model, guide and arguments (data,): 18 points of the plane around three centres."""
    torch.manual_seed(seed)
    centres = torch.tensor([[-3.0, -3.0], [3.0, 3.0], [3.0, -3.0]])
    data = centres[torch.arange(18) % 3] + 0.5 * torch.randn(18, 2)

    def model(data):
        with pyro.plate("sticks", T - 1):
            beta = pyro.sample("beta", dist.Beta(1, 1.0))
        with pyro.plate("components", T):
            mu = pyro.sample("mu", dist.MultivariateNormal(torch.zeros(2), 5 * torch.eye(2)))
        with pyro.plate("data", len(data)):
            z = pyro.sample("z", dist.Categorical(weights_of(beta)))
            pyro.sample("obs", dist.MultivariateNormal(mu[z], torch.eye(2)), obs=data)

    def guide(data):
        kappa = pyro.param("kappa", torch.full((T - 1,), 1.0), constraint=constraints.positive)
        tau = pyro.param("tau", torch.randn(T, 2))
        phi = pyro.param("phi", torch.zeros(len(data), T))
        with pyro.plate("sticks", T - 1):
            pyro.sample("beta", dist.Beta(torch.ones(T - 1), kappa))
        with pyro.plate("components", T):
            pyro.sample("mu", dist.MultivariateNormal(tau, 0.3 * torch.eye(2)))
        with pyro.plate("data", len(data)):
            pyro.sample("z", dist.Categorical(softmax(phi, -1)))

    return model, guide, (data,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
