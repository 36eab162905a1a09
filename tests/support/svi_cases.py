"""Small runs of `pathscore.SVI` that its tests share: a conjugate pair in plain functions, and a tiny autoencoder."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from torch.distributions import constraints

from guides import AmortizedGuide
from models import VAE
from pathscore.svi import SVI
from pathscore.svi.optimiser import OptimizerSpec

X = torch.linspace(-1.0, 2.0, 6)


class Pair:
    """A conjugate Normal program in plain functions; `late` makes one more parameter from step 7 on."""

    def __init__(self, late: int | None = None):
        self.late, self.calls = late, 0

    def model(self, x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample(
                "x", dist.Normal(z, pyro.param("noise", torch.tensor(1.0), constraint=constraints.positive)), obs=x
            )

    def guide(self, x):
        self.calls += 1
        loc = pyro.param("loc", torch.tensor(0.3))
        if self.late is not None and self.calls >= self.late:
            loc = loc + pyro.param("late", lambda: 0.1 * torch.randn(()))
        pyro.sample("z", dist.Normal(loc, pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)))


def vae_run(optim=None, latent="normal", seed=0, **options):
    torch.manual_seed(seed)
    sizes = {"data_size": 12, "layers": (3,), "hidden": (8,), "latent": latent}
    model, guide = VAE(**sizes), AmortizedGuide(**sizes)
    return SVI(model, guide, optim or OptimizerSpec(lr=0.01), Trace_ELBO(max_plate_nesting=1), **options)


def bits(rows=10, seed=3):
    return (torch.rand(rows, 12, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def values(svi):
    return {name: p.detach().clone() for name, p in svi.parameters().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
