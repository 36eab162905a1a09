"""A Bayesian neural network: Normal priors on the weights of a small network, and `AutoNormal`.

After Pyro's tutorial "Bayesian Regression" with a `PyroModule`. `build(seed) -> (model, guide, args)`.
"""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import nn

from pathscore import SVI, make_elbo


class Network(PyroModule):
    """y = W₂ tanh(W₁ x + b₁) + b₂ with Normal weights."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = PyroModule[nn.Linear](1, 4), PyroModule[nn.Linear](4, 1)
        for layer in (self.hidden, self.out):
            for name, value in list(layer.named_parameters()):
                setattr(layer, name, PyroSample(dist.Normal(0.0, 1.0).expand(value.shape).to_event(value.ndim)))

    def forward(self, x, y=None):
        mean = self.out(torch.tanh(self.hidden(x))).squeeze(-1)
        scale = pyro.sample("scale", dist.Gamma(2.0, 4.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, scale), obs=y)
        return mean


def build(seed: int = 0):
    """Model, guide and arguments (x, y): x (40, 1), y (40,)."""
    torch.manual_seed(seed)
    x = torch.linspace(-2, 2, 40)[:, None]
    y = torch.sin(2 * x[:, 0]) + 0.2 * torch.randn(40)
    model = Network()
    return model, AutoNormal(model), (x, y)


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")
