"""A mixture of two normals whose data points are drawn in a Python loop, with an assignment for each.

After the models of Pyro's tutorial "SVI Part II", sequential plates. `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (data,): 4 numbers around −2 and 2."""
    torch.manual_seed(seed)
    data = 2.0 * (2 * (torch.arange(4) % 2) - 1) + 0.5 * torch.randn(4)

    def model(data):
        shift = pyro.sample("shift", dist.Normal(0.0, 3.0))
        for i in pyro.plate("data", len(data)):
            b = pyro.sample(f"b_{i}", dist.Bernoulli(0.5))
            pyro.sample(f"x_{i}", dist.Normal((2 * b - 1) * shift, 1.0), obs=data[i])

    def guide(data):
        pyro.sample("shift", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 0.3))
        logits = pyro.param("logits", torch.zeros(len(data)))
        for i in pyro.plate("data", len(data)):
            pyro.sample(f"b_{i}", dist.Bernoulli(logits=logits[i]))

    return model, guide, (data,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam(lr=0.02)", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
