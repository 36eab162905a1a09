"""Programs that change what they keep whenever they run: `PROGRAMS[name] = (make, refused)`.

make() -> (model, guide, arguments, state); state() reads what the program keeps. refused: a word of the line that says
why it cannot be one compiled graph, None where it can.
"""

import random

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms as T
from torch import nn
from torch.nn.utils import parametrizations
from written_programs import data, line


def program(draw, state):
    """A guide that calls draw(x) for its law of `w`."""

    def guide(x, y):
        pyro.sample("w", draw(x))
        pyro.sample("s", dist.LogNormal(pyro.param("m", torch.tensor(0.0)), 0.3))

    return line, guide, data(), state


def normal(mean):
    return dist.Normal(mean, 1.0).to_event(1)


def location():
    return pyro.param("mu", torch.ones(3))


def network(make):
    """A network of the guide, with buffers, that the guide's function closes over."""

    def made():
        net = make()

        def draw(x):
            pyro.module("net", net)
            return normal(net(x).mean(0))

        return program(draw, lambda: [b.clone() for b in net.buffers()])

    return made


def batch_norm():
    return nn.Sequential(nn.Linear(2, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


def spectral_norm():
    return nn.Sequential(nn.Linear(2, 40), parametrizations.spectral_norm(nn.Linear(40, 3)))


def flow():
    layers = [T.affine_autoregressive(3, [5]), T.batchnorm(3), T.affine_autoregressive(3, [5])]

    def draw(x):
        for place, layer in enumerate(layers):
            pyro.module(f"layer{place}", layer)
        return dist.TransformedDistribution(normal(torch.zeros(3)), layers)

    return program(draw, lambda: [b.clone() for b in layers[1].buffers()])


class ActNorm(nn.Module):
    """Weights that the first batch sets."""

    def __init__(self):
        super().__init__()
        self.net, self.shift = nn.Linear(2, 3), nn.Parameter(torch.zeros(3))
        self.register_buffer("ready", torch.tensor(0))

    def forward(self, x):
        h = self.net(x)
        if not self.ready:
            self.shift.data.copy_(-h.detach().mean(0))
            self.ready.fill_(1)
        return h + self.shift


def plain_tensor():
    seen = torch.zeros(3)

    def draw(x):
        seen.mul_(0.9).add_(1.0)
        return normal(location() * (1 + 0.1 * seen))

    return program(draw, lambda: seen.clone())


def memory():
    kept = {"h": torch.zeros(3)}

    def draw(x):
        mean = location() + 0.1 * kept["h"]
        kept["h"] = mean.detach()
        return normal(mean)

    return program(draw, lambda: kept["h"].clone())


def memory_at_first_none():
    kept = {"h": None}

    def draw(x):
        mean = location() if kept["h"] is None else location() + 0.1 * kept["h"]
        kept["h"] = mean.detach()
        return normal(mean)

    return program(draw, lambda: kept["h"])


def count_in_a_dictionary():
    kept = {"n": 0}

    def draw(x):
        kept["n"] += 1
        return normal(location() / kept["n"])

    return program(draw, lambda: kept["n"])


def count_of_a_function():
    n = 0

    def draw(x):
        nonlocal n
        n += 1
        return normal(location() / (1 + 1e-6 * n))

    return program(draw, lambda: n)


class Counting:
    """An object of the user's own, whose method is the guide."""

    def __init__(self):
        self.calls, self.seen = 0, []

    def guide(self, x, y):
        self.calls += 1
        self.seen.append(self.calls)
        pyro.sample("w", normal(location() / self.calls))
        pyro.sample("s", dist.LogNormal(pyro.param("m", torch.tensor(0.0)), 0.3))


def count_of_an_object():
    own = Counting()
    return line, own.guide, data(), lambda: (own.calls, list(own.seen))


def pythons_noise():
    return program(lambda x: normal(location() * (1 + 0.1 * random.random())), random.getstate)


def numpys_noise():
    return program(lambda x: normal(location() * (1 + 0.1 * np.random.normal())), lambda: str(np.random.get_state()))


def own_noise():
    generator = np.random.default_rng(0)
    return program(
        lambda x: normal(location() * (1 + 0.1 * generator.normal())), lambda: str(generator.bit_generator.state)
    )


def torchs_own_noise():
    generator = torch.Generator()
    generator.manual_seed(0)
    return program(lambda x: normal(location() + torch.randn(3, generator=generator)), generator.get_state)


PROGRAMS = {
    "batch norm": (
        network(lambda: nn.Sequential(nn.Linear(2, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))),
        None,
    ),
    "spectral norm": (
        network(lambda: nn.Sequential(nn.Linear(2, 40), parametrizations.spectral_norm(nn.Linear(40, 3)))),
        None,
    ),
    "batch norm of a flow": (flow, None),
    "a tensor": (plain_tensor, None),
    "weights set by the first batch": (network(ActNorm), "values of tensors"),
    "a memory": (memory, "dict.h"),
    "a memory that is None at first": (memory_at_first_none, "dict.h"),
    "a count in a dictionary": (count_in_a_dictionary, "dict.n"),
    "a count of a function": (count_of_a_function, "draw.n"),
    "a count of an object": (count_of_an_object, "Counting.calls"),
    "noise of Python": (pythons_noise, "random"),
    "noise of numpy": (numpys_noise, "numpy.random"),
    "noise of a generator of numpy": (own_noise, "generator"),
    "noise of a generator of torch": (torchs_own_noise, "generator"),
}
