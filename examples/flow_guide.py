"""A posterior that is no normal: two weights on a ring, and a guide of normalising flows.

After Pyro's tutorial "Normalizing Flows". `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import torch

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (y,): y (5,) noisy values of the ring's radius."""
    torch.manual_seed(seed)
    y = 1.0 + 0.1 * torch.randn(5)
    flow = [T.spline_coupling(2, count_bins=4), T.affine_autoregressive(2, hidden_dims=[6])]

    def model(y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(w.square().sum(-1, keepdim=True).expand(*w.shape[:-1], len(y)), 0.3), obs=y)

    def guide(y):
        for i, part in enumerate(flow):
            pyro.module(f"flow_{i}", part)
        base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        pyro.sample("w", dist.TransformedDistribution(base, flow))

    return model, guide, (y,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam(lr=0.02)", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
