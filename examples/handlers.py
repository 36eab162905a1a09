"""Handlers in one program: `obs_mask`, auxiliary site, `factor`, `deterministic`, `scale`, `mask`, `condition`.

After Pyro's page on effect handlers. `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (y, seen): y (8,) numbers, seen (8,) whether each was measured."""
    torch.manual_seed(seed)
    y, seen = 1.0 + 0.5 * torch.randn(8), torch.arange(8) < 6

    def whole(y, seen):
        raw = pyro.sample("raw", dist.Normal(0.0, 1.0))
        unused = pyro.sample("unused", dist.Normal(0.0, 1.0))
        pyro.sample("known", dist.Normal(raw, 1.0))
        level = pyro.deterministic("level", 2 * raw)
        pyro.factor("positive", torch.nn.functional.logsigmoid(level))
        with pyro.plate("data", len(y)), poutine.scale(scale=0.5), poutine.mask(mask=torch.arange(8) != 3):
            pyro.sample("y", dist.Normal(level, 0.5), obs=y, obs_mask=seen)
        return unused

    model = poutine.condition(poutine.block(whole, hide=["unused"]), data={"known": torch.tensor(0.3)})

    def guide(y, seen):
        base = pyro.sample("base", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.sample("raw", dist.Normal(loc + 0.3 * base, 0.2))
        with pyro.plate("data", len(y)), poutine.scale(scale=0.5), poutine.mask(mask=torch.arange(8) != 3):
            pyro.sample("y_unobserved", dist.Normal(pyro.param("guess", torch.tensor(0.5)), 0.6))

    return model, guide, (y, seen)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam(lr=0.02)", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
