"""Particles of negligible weight send nothing back: no subnormal numbers, which slow matrix products down.

Log-weights here spread over hundreds of nats, as they do for pictures of 784 pixels. Without the cut, shares of e^−90
reach the model's networks in every objective below.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

from pathscore.compiling.capture import capture
from pathscore.elbos import make_elbo, weights
from pathscore.elbos.importance import ImportanceELBO
from pathscore.elbos.weights import without_negligible


def subnormal(x):
    return (x != 0) & (x.abs() < torch.finfo(x.dtype).tiny)


class Program:
    """Eight data, D latent units and 30 numbers x each, with a spread of 0.9; `reached` is the gradient at x's mean."""

    def __init__(self, latent):
        generator = torch.Generator().manual_seed(0)
        self.latent, self.reached = latent, None
        self.w = torch.randn(6, 30, generator=generator).requires_grad_()
        self.a = torch.zeros(6, requires_grad=True)
        self.x = 2 * torch.randn(8, 30, generator=generator)

    def guide(self):
        with pyro.plate("data", 8, dim=-1):
            pyro.sample("z", self.family(self.a.expand(8, 6)))

    def model(self):
        with pyro.plate("data", 8, dim=-1):
            z = pyro.sample("z", self.family(torch.zeros(8, 6)))
            mean = z @ self.w  # (K, 8, 30)
            if mean.requires_grad:
                mean.register_hook(self.keep)
            pyro.sample("x", dist.Normal(mean, 0.9).to_event(1), obs=self.x)

    def family(self, raw):
        base = dist.Normal(raw, 1.0) if self.latent == "normal" else dist.Bernoulli(logits=raw)
        return base.to_event(1)

    def keep(self, gradient):
        self.reached = gradient


OBJECTIVES = [
    ("iwae", "normal", {}),
    ("vr", "normal", {"alpha": 0.5}),
    ("dreg", "normal", {}),
    ("vimco", "bernoulli", {}),
    ("vimco", "bernoulli", {"estimators": "disarm"}),
    ("wake-sleep", "bernoulli", {}),
]


def evaluated(name, latent, options):
    """A program after one evaluation of an objective, the slopes that reached it, and its gradient; the same draws."""
    program = Program(latent)
    elbo: Any = make_elbo(name, num_particles=50, max_plate_nesting=1, **options)
    torch.manual_seed(1)
    elbo.loss_and_grads(program.model, program.guide)
    assert program.reached is not None and program.w.grad is not None and program.a.grad is not None
    return program, program.reached, torch.cat([program.w.grad.flatten(), program.a.grad])


@pytest.mark.parametrize(("name", "latent", "options"), OBJECTIVES)
def test_no_subnormal_number_reaches_the_model(name, latent, options, monkeypatch):
    """And gradients stay what they are, to rounding; without the cut, subnormal numbers do reach it."""
    _, reached, gradient = evaluated(name, latent, options)
    assert not subnormal(reached).any() and (reached == 0).any()
    monkeypatch.setattr(weights, "without_negligible", lambda shares: shares)
    _, reached, whole = evaluated(name, latent, options)
    assert subnormal(reached).any()
    assert (gradient - whole).norm() <= 1e-6 * whole.norm()


def test_the_cut_is_in_the_graph_that_is_compiled():
    """Tensor hooks, for one, are not: operations of the backward pass are counted."""
    program, *_ = evaluated("iwae", "normal", {})
    elbo, leaves = ImportanceELBO(num_particles=50, max_plate_nesting=1), [program.w, program.a]
    elbo.prepare(program.model, program.guide)
    found = capture(elbo, program.model, program.guide, (), {}, leaves)
    assert [n.target for n in found.graph.graph.nodes].count(torch.ops.aten.amax.default) == 1


def test_what_is_not_finite_stays():
    shares = torch.tensor([[1.0, torch.nan, 0.0], [1e-15, 1e-15, 0.0], [-1e-3, 1.0, 0.0]])
    expected = torch.tensor([[1.0, torch.nan, 0.0], [0.0, 1e-15, 0.0], [-1e-3, 1.0, 0.0]])
    assert torch.equal(without_negligible(shares).nan_to_num(7.0), expected.nan_to_num(7.0))
