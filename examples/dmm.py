"""A deep Markov model: a chain of latent states behind every sequence, masked to the length of each.

After Pyro's tutorial "Deep Markov Model". `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import nn
from torch.nn.functional import softplus

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (x, mask, annealing): x (10, 4, 5) binary, mask (10, 4)."""
    torch.manual_seed(seed)
    x = torch.bernoulli(torch.full((10, 4, 5), 0.4))
    mask = torch.arange(4) < torch.randint(2, 5, (10, 1))
    transition, emitter = nn.Linear(2, 4), nn.Linear(2, 5)
    recurrent, combiner = nn.GRU(5, 6, batch_first=True), nn.Linear(8, 4)
    first = nn.Parameter(torch.zeros(2))

    def model(x, mask, annealing=1.0):
        for name, module in (("transition", transition), ("emitter", emitter)):
            pyro.module(name, module)
        z = pyro.param("first", first)
        with pyro.plate("data", len(x)):
            for t in pyro.markov(range(x.shape[1])):
                loc, raw_scale = transition(z).chunk(2, -1)
                with poutine.scale(scale=annealing):
                    law = dist.Normal(loc, softplus(raw_scale)).mask(mask[:, t : t + 1]).to_event(1)
                    z = pyro.sample(f"z_{t}", law)
                likelihood = dist.Bernoulli(logits=emitter(z)).mask(mask[:, t : t + 1]).to_event(1)
                pyro.sample(f"x_{t}", likelihood, obs=x[:, t])

    def guide(x, mask, annealing=1.0):
        for name, module in (("recurrent", recurrent), ("combiner", combiner)):
            pyro.module(name, module)
        states, _ = recurrent(x.flip(1))
        states = states.flip(1)
        z = torch.zeros(2)
        with pyro.plate("data", len(x)):
            for t in pyro.markov(range(x.shape[1])):
                shape = torch.broadcast_shapes(z.shape[:-1], (len(x),))
                both = torch.cat([z.expand(*shape, 2), states[:, t].expand(*shape, 6)], -1)
                loc, raw_scale = combiner(both).chunk(2, -1)
                with poutine.scale(scale=annealing):
                    law = dist.Normal(loc, softplus(raw_scale)).mask(mask[:, t : t + 1]).to_event(1)
                    z = pyro.sample(f"z_{t}", law)

    return model, guide, (x, mask, 1.0)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
