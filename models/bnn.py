"""A Bayesian neural network: every weight and bias of a classifier is a sample site.

    model(x, y):  W_l ~ N(0, s²/fan-in),  b_l ~ N(0, s²),  y_n ~ Categorical(softmax(net(x_n; W, b)))

x (B, D), y (B,) labels 0 … C − 1. The layers are `nn.Linear` with Pyro's `PyroSample` in place of their parameters, so
the sites are named `net.0.weight`, `net.0.bias`, … as the parameters are. The weights belong to the whole data set: N
rows, of which a call sees B as a subsample.

References:
    Weight uncertainty in neural networks. C. Blundell, J. Cornebise, K. Kavukcuoglu, D. Wierstra, 2015.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn


class BayesianNetwork(PyroModule):
    """The program for a data set of `rows` rows; sizes: inputs, hidden units of each layer, classes."""

    def __init__(self, rows: int, sizes: Sequence[int], prior_scale: float = 3.0):
        super().__init__()
        self.rows = rows
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            layer = PyroModule[nn.Linear](inputs, outputs)  # type: ignore[call-arg]  # the class is made at run time
            layer.weight = prior((outputs, inputs), prior_scale / inputs**0.5)
            layer.bias = prior((outputs,), prior_scale)
            layers += [layer, nn.ReLU()] if i < len(sizes) - 2 else [layer]
        self.net = PyroModule[nn.Sequential](*layers)  # type: ignore[arg-type]  # the same

    def forward(self, x: Tensor, y: Tensor) -> None:
        logits = self.net(x)
        with pyro.plate("data", max(self.rows, len(x)), subsample_size=len(x), dim=-1):
            pyro.sample("y", dist.Categorical(logits=logits), obs=y)


def prior(shape: tuple[int, ...], scale: float) -> PyroSample:
    """Independent Normals of mean 0."""
    return PyroSample(dist.Normal(torch.zeros(shape), scale).to_event(len(shape)))


@torch.no_grad()
def predictive(model: BayesianNetwork, guide: Callable, x: Tensor, draws: int) -> Tensor:
    """The mean of the class probabilities over `draws` draws of the guide, (N, C)."""
    total = torch.zeros(())
    for _ in range(draws):
        drawn = poutine.trace(guide).get_trace(x)
        total = total + poutine.replay(model.net, trace=drawn)(x).softmax(-1)
    return total / draws
