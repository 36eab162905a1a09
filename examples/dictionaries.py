"""A program whose arguments are a dictionary and a keyword: a switch of the noise between two families.

Written as the models of larger projects are. `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoDiagonalNormal

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (batch,): {"features": (20, 2), "target": (20,), "name": a word}."""
    torch.manual_seed(seed)
    features = torch.randn(20, 2)
    batch = {"features": features, "target": features.sum(-1) + 0.2 * torch.randn(20), "name": "line"}

    def model(batch, *, robust=False):
        weights = pyro.sample("weights", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        mean = (batch["features"] * weights).sum(-1)
        with pyro.plate(batch["name"], len(batch["target"])):
            law = dist.StudentT(4.0, mean, 0.2) if robust else dist.Normal(mean, 0.2)
            pyro.sample("target", law, obs=batch["target"])

    return model, AutoDiagonalNormal(model), (batch,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam(lr=0.02)", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
