"""Bayesian linear regression with a matrix product, and `AutoMultivariateNormal`.

After Pyro's tutorial "Bayesian Regression". `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoMultivariateNormal

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (X, y): X (60, 3), y (60,)."""
    torch.manual_seed(seed)
    X = torch.randn(60, 3)
    y = X @ torch.tensor([1.0, -2.0, 0.5]) + 0.3 * torch.randn(60)

    def model(X, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        b = pyro.sample("b", dist.Normal(0.0, 2.0))
        s = pyro.sample("s", dist.HalfNormal(1.0))
        with pyro.plate("data", len(X)):
            pyro.sample("y", dist.Normal(X @ w + b, s), obs=y)

    return model, AutoMultivariateNormal(model), (X, y)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
