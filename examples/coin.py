"""The fairness of a coin: ten throws, a Beta prior, and a guide with two parameters.

After Pyro's tutorial "SVI Part I". `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (data,): six heads and four tails."""
    data = torch.tensor([1.0] * 6 + [0.0] * 4)

    def model(data):
        fairness = pyro.sample("latent_fairness", dist.Beta(10.0, 10.0))
        with pyro.plate("data", len(data)):
            pyro.sample("obs", dist.Bernoulli(fairness), obs=data)

    def guide(data):
        alpha = pyro.param("alpha_q", torch.tensor(15.0), constraint=constraints.positive)
        beta = pyro.param("beta_q", torch.tensor(15.0), constraint=constraints.positive)
        pyro.sample("latent_fairness", dist.Beta(alpha, beta))

    return model, guide, (data,)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam(lr=0.02)", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
