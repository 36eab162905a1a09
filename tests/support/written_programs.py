"""Programs as people write them, for compiled steps: `PROGRAMS[name]() -> (model, guide, arguments)`.

Pyro's autoguides, networks of `PyroSample` weights, flows with their inverses, modules with buffers; and, in `EAGER`,
programs that cannot be one graph, each with what the refusal has to name.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms as T
from pyro.infer import autoguide
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.distributions import constraints


def data():
    """x (6, 2), y (6,) of the default type."""
    x = torch.linspace(-1, 1, 12).reshape(6, 2)
    return x, x.sum(-1) + 0.1


def line(x, y):
    """Weights shared by the rows."""
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    s = pyro.sample("s", dist.LogNormal(0.0, 0.5))
    with pyro.plate("d", len(x)):
        pyro.sample("y", dist.Normal((x * w[..., :2]).sum(-1) + w[..., 2], s), obs=y)


class Net(PyroModule):
    """A Bayesian network."""

    def __init__(self):
        super().__init__()
        self.layer = PyroModule[nn.Linear](2, 5)
        self.layer.weight = PyroSample(dist.Normal(0.0, 1.0).expand([5, 2]).to_event(2))
        self.out = nn.Linear(5, 1)
        self.scale = PyroParam(torch.tensor(0.3), constraint=constraints.positive)

    def forward(self, x, y):
        mean = self.out(torch.tanh(self.layer(x))).squeeze(-1)
        with pyro.plate("d", len(x)):
            pyro.sample("y", dist.Normal(mean, self.scale), obs=y)


def bayesian_network():
    model = Net()
    return model, autoguide.AutoNormal(model), data()


def autoguided(kind, **options):
    def make():
        return line, kind(line, **options), data()

    return make


def flow(make_transform):
    def make():
        transform = make_transform()

        def guide(x, y):
            pyro.module("flow", transform)
            base = dist.Normal(torch.zeros(3), 1.0).to_event(1)
            pyro.sample("w", dist.TransformedDistribution(base, [transform]))
            pyro.sample("s", dist.LogNormal(pyro.param("m", torch.tensor(0.0)), 0.3))

        return line, guide, data()

    return make


class Buffers(nn.Module):
    """Running statistics and dropout: state that changes in place, and noise of the program's own."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 2)
        )
        self.register_buffer("calls", torch.zeros(()))

    def model(self, x, y):
        pyro.module("own", self)
        with pyro.plate("d", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("y", dist.Normal(z.sum(-1), 0.5), obs=y)

    def guide(self, x, y):
        pyro.module("own", self)
        self.calls.add_(1)
        with pyro.plate("d", len(x)):
            pyro.sample("z", dist.Normal(self.net(x), 0.3 + 0.001 * self.calls).to_event(1))


def buffers():
    program = Buffers()
    return program.model, program.guide, data()


def looped(size=6):
    """Data points drawn one by one, in a Python loop over a plate."""

    def model(x, y):
        for i in pyro.plate("d", size):
            z = pyro.sample(f"z_{i}", dist.Normal(0.0, 1.0))
            pyro.sample(f"y_{i}", dist.Normal(z, 0.5), obs=y[i])

    def guide(x, y):
        loc = pyro.param("loc", torch.zeros(size))
        for i in pyro.plate("d", size):
            pyro.sample(f"z_{i}", dist.Normal(loc[i], 0.3))

    return model, guide, data()


def subsampled_loop():
    """Pyro's tutorial on large data: a loop over a random part of the data, in the model."""

    def model(x, y):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        for i in pyro.plate("d", len(y), subsample_size=2):
            pyro.sample(f"y_{i}", dist.Normal(z, 0.5), obs=y[i])

    def guide(x, y):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 0.3))

    return model, guide, data()


PROGRAMS = {
    "bayesian network": bayesian_network,
    "AutoNormal": autoguided(autoguide.AutoNormal),
    "AutoDiagonalNormal": autoguided(autoguide.AutoDiagonalNormal),
    "AutoMultivariateNormal": autoguided(autoguide.AutoMultivariateNormal),
    "AutoLowRankMultivariateNormal": autoguided(autoguide.AutoLowRankMultivariateNormal, rank=2),
    "AutoDelta": autoguided(autoguide.AutoDelta),
    "AutoIAFNormal": autoguided(autoguide.AutoIAFNormal),
    "AutoStructured": autoguided(autoguide.AutoStructured),
    "planar flow": flow(lambda: T.planar(3)),
    "autoregressive flow": flow(lambda: T.affine_autoregressive(3, hidden_dims=[4])),
    "neural autoregressive flow": flow(lambda: T.neural_autoregressive(3, hidden_dims=[4])),
    "spline flow": flow(lambda: T.spline(3)),
    "coupling flow": flow(lambda: T.affine_coupling(3, hidden_dims=[4])),
    "buffers and dropout": buffers,
    "a loop over a plate": looped,
}


class Kept(nn.Module):
    """A value of the last step, kept under `name` and read in the next one."""

    def __init__(self, name):
        super().__init__()
        self.name, self.weight = name, nn.Parameter(torch.zeros(2))
        setattr(self, name, torch.zeros(2))

    def guide(self, x, y):
        pyro.module("kept", self)
        before = getattr(self, self.name)
        with pyro.plate("d", len(x)):
            z = pyro.sample("z", dist.Normal(self.weight + 0.1 * before, 0.3).to_event(1))
        setattr(self, self.name, z.detach().mean(0))

    def model(self, x, y):
        with pyro.plate("d", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("y", dist.Normal(z.sum(-1), 0.5), obs=y)


class Written(Kept):
    """A public attribute that each step assigns and none reads: somebody outside may."""

    def guide(self, x, y):
        pyro.module("kept", self)
        with pyro.plate("d", len(x)):
            z = pyro.sample("z", dist.Normal(self.weight, 0.3).to_event(1))
        self.latest = z.detach()


class Appended(Kept):
    """A list that grows by the values of each step."""

    def __init__(self):
        super().__init__("unused")
        self.history = []

    def guide(self, x, y):
        pyro.module("kept", self)
        with pyro.plate("d", len(x)):
            z = pyro.sample("z", dist.Normal(self.weight, 0.3).to_event(1))
        self.history.append(z.detach())


def methods(make):
    def made():
        program = make()
        return program.model, program.guide, data()

    return made


def branching():
    program = Kept("_unused")

    def guide(x, y):
        pyro.module("kept", program)
        with pyro.plate("d", len(x)):
            z = pyro.sample("z", dist.Normal(program.weight, 0.3).to_event(1))
        if z.mean() > 1e6:
            pyro.param("never", torch.zeros(()))
        for _ in range(int(z.abs().max() * 0) + 1):
            pass

    return program.model, guide, data()


EAGER = {
    "state by assignment": (methods(lambda: Kept("state")), "Kept.state"),
    "private state by assignment": (methods(lambda: Kept("_state")), "Kept._state"),
    "a public attribute": (methods(lambda: Written("other")), "Written.latest"),
    "a list that grows": (methods(Appended), "Appended.history"),
    "a loop that depends on values": (branching, "values of tensors"),
    "a loop over a subsample": (subsampled_loop, "a loop over a subsample"),
}
