"""Pyro's own `trace` and `tracegraph`: mended, refused or warned of where their score function is silently wrong.

N = 20 000 replicates on a plate; |z| ≤ 4.5 in every coordinate (false-alarm rate 7e-6 each, p ≥ 1e-4 over all); a bias
of 6 standard errors is found with probability above 0.93. Random programs (tests/random) found all three.
"""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from proof_statistics import judge

from pathscore import exact, make_elbo
from pathscore.elbos import stock_credit
from pathscore.errors import UsageError

N = 20_000

pytestmark = pytest.mark.usefixtures("float64")


class BetaAfterBit:
    """b ~ Bernoulli, z ~ Beta with parameters that b moves: torch differentiates its draw by a function of its own."""

    def __init__(self, n=N):
        self.n = n
        self.a, self.s = (torch.full((n,), v).requires_grad_() for v in (0.4, 0.7))

    def model(self):
        with pyro.plate("replicates", self.n):
            b = pyro.sample("b", dist.Bernoulli(0.3))
            z = pyro.sample("z", dist.Beta(2.0, 2.0))
            pyro.sample("x", dist.Normal(z + b, 0.5), obs=torch.tensor(1.4))

    def guide(self):
        pyro.param("any", torch.zeros(()))  # Pyro follows gradients only where a trace holds a parameter
        with pyro.plate("replicates", self.n):
            b = pyro.sample("b", dist.Bernoulli(logits=self.a))
            pyro.sample("z", dist.Beta(1 + (self.s + b).exp(), torch.tensor(2.0)))


def verdict(name):
    many, one = BetaAfterBit(), BetaAfterBit(1)
    make_elbo(name).loss_and_grads(many.model, many.guide)
    target = torch.cat(exact.gradient(one.model, one.guide, params=[one.a, one.s], nodes=60))
    return judge(torch.stack([-many.a.grad, -many.s.grad], 1), target)


@pytest.mark.parametrize("name", ["trace", "tracegraph"])
def test_a_draw_after_a_score_function_keeps_its_path(name):
    found = verdict(name)
    assert found.passes, found


def test_draws_from_parameters_with_provenance_are_caught(monkeypatch):
    """What Pyro does: the draw has no path."""
    monkeypatch.setattr(stock_credit, "PlainDraws", lambda: lambda guide: guide)
    assert not verdict("tracegraph").passes


def test_a_geometric_draw_after_a_score_function_is_made():
    def program():
        with pyro.plate("d", 5):
            b = pyro.sample("b", dist.Bernoulli(pyro.param("p", torch.tensor(0.4))))
            pyro.sample("z", dist.Geometric(logits=b))

    make_elbo("tracegraph", num_particles=3).loss_and_grads(program, program)


def coupled_guide():
    with pyro.plate("d", 2):
        z = pyro.sample("z", dist.Bernoulli(pyro.param("p", torch.tensor(0.4))))
    pyro.sample("w", dist.Normal(z.sum(), 1.0))


def coupled_model():
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("d", 2):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(w + z, 1.0), obs=torch.ones(2))


@pytest.mark.parametrize("name", ["trace", "tracegraph"])
def test_coupled_members_are_refused_and_an_estimator_serves_them(name):
    with pytest.raises(UsageError, match=r"draws 'w' outside plate 'd' and given 'z' inside it.*name an estimator"):
        make_elbo(name).loss_and_grads(coupled_model, coupled_guide)
    make_elbo(name, "score").loss_and_grads(coupled_model, coupled_guide)


def bit_guide():
    pyro.sample("b", dist.Bernoulli(pyro.param("p", torch.tensor(0.4))))


def reading(number):
    def model():
        b = pyro.sample("b", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(b.item() if number else b, 1.0), obs=torch.tensor(1.0))

    return model


def test_a_value_that_leaves_tensors_is_warned_of_under_tracegraph_alone():
    with pytest.warns(UserWarning, match="the value of b leaves tensors"):
        make_elbo("tracegraph").loss_and_grads(reading(True), bit_guide)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_elbo("tracegraph").loss_and_grads(reading(False), bit_guide)
        make_elbo("trace").loss_and_grads(reading(True), bit_guide)
