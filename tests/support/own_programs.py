"""Programs as somebody writes them in a file of their own: `--model own_programs.py:NAME`, for every kind of data.

BUMPS draws two bits for each row; LINE has weights that all rows share, and labels; COUNTS takes counts, STEPS
sequences; COIN needs no data. `arrays(name)` are data for each.
"""

import dataclasses

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import constraints

from pathscore import Program, between, option


class Bumps(nn.Module):
    """Rows around one of four centres, chosen by two bits: b ~ Bernoulli(½)², x ~ N(W b + c, 1)."""

    def __init__(self, width):
        super().__init__()
        self.decoder, self.encoder = nn.Linear(2, width), nn.Linear(width, 2)

    def model(self, x):
        pyro.module("bumps", self)
        with pyro.plate("data", len(x), dim=-1):
            b = pyro.sample("b", dist.Bernoulli(x.new_full((2,), 0.5)).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(b), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("bumps", self)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("b", dist.Bernoulli(logits=self.encoder(x)).to_event(1))


def make_bumps(data, options):
    bumps = Bumps(data.x.shape[1])
    return bumps.model, bumps.guide


BUMPS = Program(make_bumps, doc="rows around one of four centres")


@dataclasses.dataclass(frozen=True)
class LineOptions:
    """A straight line"""

    prior_scale: float = option(3.0, "standard deviation of a weight before the data", check=between(0.01, 100))
    shape_of_noise: str = option("normal", "law of what the line misses", choices=("normal", "laplace"))


def make_line(data, options):
    """w ~ N(0, s²), y ~ noise(w·x + w₀, ½): the weights are shared, so the plate is as long as the data set."""
    rows, width = data.x.shape
    noise = {"normal": dist.Normal, "laplace": dist.Laplace}[options.shape_of_noise]

    def model(x, y):
        w = pyro.sample("w", dist.Normal(x.new_zeros(width + 1), options.prior_scale).to_event(1))
        with pyro.plate("data", rows, subsample_size=len(x), dim=-1):
            mean = (x * w[..., :width]).sum(-1) + w[..., width]
            pyro.sample("y", noise(mean, 0.5), obs=y)

    def guide(x, y):
        loc = pyro.param("loc", x.new_zeros(width + 1))
        scale = pyro.param("scale", x.new_full((width + 1,), 0.1), constraint=constraints.positive)
        pyro.sample("w", dist.Normal(loc, scale).to_event(1))

    return model, guide


def line_measures(model, guide, args, options):
    x, y = args
    w = pyro.param("loc")
    return {"mean squared error": ((x @ w[:-1] + w[-1] - y) ** 2).mean().item()}


def line_pictures(model, guide, args, data, options):
    from matplotlib.figure import Figure

    x, y = args
    figure = Figure()
    figure.add_subplot().scatter(x[:, 0], y)
    return {"line": figure}


LINE = Program(
    make_line,
    doc="a straight line",
    options=LineOptions,
    takes=("rows", "labels"),
    whole=True,
    settle=lambda options, data, summed: {"steps": 150, "batch_size": 25},
    title=lambda options: options.shape_of_noise,
    measures=line_measures,
    pictures=line_pictures,
    reference=lambda model, guide, args, options: {"rows": float(len(args[0]))},
)


def make_counts(data, options):
    """z ~ N(0, 1), x ~ Poisson(exp(a + b z))."""
    width = data.x.shape[1]

    def model(x):
        rate = pyro.param("a", x.new_zeros(width)), pyro.param("b", x.new_full((width,), 0.1))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Poisson((rate[0] + rate[1] * z[..., None]).exp()).to_event(1), obs=x)

    def guide(x):
        loc = pyro.param("loc", x.new_zeros(()))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(loc * (1 + x).log().mean(-1), 0.5))

    return model, guide


COUNTS = Program(make_counts, takes=("counts",))


def make_steps(data, options):
    """A level z for each sequence, and steps x_t ~ N(z, 1) up to its length."""

    def model(x, lengths):
        scale = pyro.param("scale", x.new_ones(()), constraint=constraints.positive)
        seen = torch.arange(x.shape[1]) < lengths[:, None]
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 2.0))
            law = dist.Normal(z[..., None], scale).expand_by([]).mask(seen)
            pyro.sample("x", law.to_event(1), obs=x[..., 0])

    def guide(x, lengths):
        weight = pyro.param("weight", x.new_full((), 0.5))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(weight * x[..., 0].mean(-1), 0.3))

    return model, guide


STEPS = Program(make_steps, takes=("sequences",))


def make_coin(data, options):
    """p ~ Beta(10, 10), seven heads in ten throws: the program is the data."""
    throws = torch.tensor([1.0] * 7 + [0.0] * 3)

    def model():
        p = pyro.sample("p", dist.Beta(10.0, 10.0))
        with pyro.plate("throws", 10, dim=-1):
            pyro.sample("x", dist.Bernoulli(p), obs=throws)

    def guide():
        a, b = (pyro.param(name, torch.tensor(12.0), constraint=constraints.positive) for name in "ab")
        pyro.sample("p", dist.Beta(a, b))

    return model, guide


COIN = Program(make_coin, takes=(), whole=True)


def arrays(name: str) -> dict[str, np.ndarray]:
    """Data for a program, as an .npz archive holds them."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(60, 3))
    found = {
        "BUMPS": {"x": 3 * draw.integers(0, 2, size=(60, 1)) + x},
        "LINE": {"x": x, "y": x @ [1.0, -2.0, 0.5] + 0.3 + 0.5 * draw.normal(size=60)},
        "COUNTS": {"x": draw.poisson(np.exp(0.5 * x))},
        "STEPS": {"x": draw.normal(size=(60, 5, 1)) + 2, "lengths": draw.integers(1, 6, size=60)},
    }
    return found[name]
