"""Bayesian regression with each of Pyro's autoguides: `build(seed, kind) -> (model, guide, args)`, kinds in `KINDS`.

After Pyro's tutorial "Bayesian Regression". Run it with a kind: `python examples/autoguides.py AutoIAFNormal`.
"""

import sys

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import autoguide

from pathscore import SVI, make_elbo

KINDS = {
    "AutoNormal": {},
    "AutoDiagonalNormal": {},
    "AutoMultivariateNormal": {},
    "AutoLowRankMultivariateNormal": {"rank": 1},
    "AutoDelta": {},
    "AutoLaplaceApproximation": {},
    "AutoIAFNormal": {"hidden_dim": [8]},
    "AutoStructured": {},
    "AutoGaussian": {},
}


def build(seed: int = 0, kind: str = "AutoNormal"):
    """Model, guide and arguments (x, y): x (30, 2), y (30,). A weight, an intercept and a positive scale."""
    torch.manual_seed(seed)
    x = torch.randn(30, 2)
    y = x.sum(-1) + 0.3 * torch.randn(30)

    def model(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        b = pyro.sample("b", dist.Normal(0.0, 2.0))
        s = pyro.sample("s", dist.LogNormal(-1.0, 0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal((x * w).sum(-1) + b, s), obs=y)

    return model, getattr(autoguide, kind)(model, **KINDS[kind]), (x, y)


if __name__ == "__main__":
    model, guide, args = build(kind=sys.argv[1] if len(sys.argv) > 1 else "AutoNormal")
    svi = SVI(model, guide, "adam(lr=0.02)", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
