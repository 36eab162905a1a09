"""Annealed importance sampling against closed forms and quadrature, and with faults planted."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pathscore import evaluation, exact
from pathscore.errors import UsageError
from pathscore.evaluation import annealing
from pathscore.evaluation.unconstrained import LatentSpace
from pathscore.exact import gaussian


class Latents(nn.Module):
    """Linear-Gaussian in z, or with a positive latent: what annealed importance sampling is checked on."""

    def __init__(self, prior, start, scale):
        super().__init__()
        self.prior, self.start, self.scale = prior, start, scale
        self.w = torch.tensor([[1.0, -0.5, 0.3, 0.8], [0.2, 0.9, -0.7, 0.1]], dtype=torch.float64)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior)
            pyro.sample("x", dist.Normal(z @ self.w, self.scale).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.start)


def _gaussian_case():
    zero = torch.zeros(2, dtype=torch.float64)
    return Latents(dist.Normal(zero, 1.0).to_event(1), dist.Normal(zero + 0.4, 0.9).to_event(1), 0.7)


def test_ais_and_the_importance_bound_agree_with_the_closed_form_within_a_twentieth_of_a_nat(capsys):
    pair, x = _gaussian_case(), torch.randn(10, 4, dtype=torch.float64)
    right = gaussian.log_evidence(pair.model, pair.guide, x)
    bound = evaluation.importance_bound(pair.model, pair.guide, x, num_particles=5000)
    starts = {"guide": pair.guide, "prior": None}
    found = {
        name: evaluation.ais(pair.model, start, x, chains=128, temperatures=40, leapfrog_steps=4)
        for name, start in starts.items()
    }
    errors = {name: (f.log_likelihood - right).mean().item() for name, f in found.items()}
    errors["importance bound"] = (bound - right).mean().item()
    with capsys.disabled():
        print("\nlog p(x) − exact, nats:", {name: round(error, 4) for name, error in errors.items()})
    assert max(map(abs, errors.values())) < 0.05
    assert all(0.5 < f.acceptance.mean() < 0.95 for f in found.values())
    assert all(f.log_weights.shape == (128, 10) and f.relative_ess.min() > 0.05 for f in found.values())


def _skip_the_jacobian(monkeypatch):
    original = LatentSpace._constrain
    monkeypatch.setattr(LatentSpace, "_constrain", lambda self, u: (original(self, u)[0], torch.zeros_like(u[..., 0])))


def _ignore_the_temperature(monkeypatch):
    original = annealing.transition
    monkeypatch.setattr(annealing, "transition", lambda logs, u, beta, step, n: original(logs, u, 1.0, step, n))


def _positive_case():
    ones = torch.ones(2, dtype=torch.float64)
    return Latents(dist.Gamma(2 * ones, 1.0).to_event(1), dist.LogNormal(0 * ones, 0.8).to_event(1), 0.6)


def _ais_error():
    pair, x = _positive_case(), torch.rand(6, 4, dtype=torch.float64)
    right = exact.log_evidence(pair.model, pair.guide, x, nodes=100)
    found = evaluation.ais(pair.model, pair.guide, x, chains=128, temperatures=30, leapfrog_steps=4)
    return (found.log_likelihood - right).mean().abs().item()


def test_ais_works_on_a_positive_latent():
    assert _ais_error() < 0.05


@pytest.mark.parametrize("plant", [_skip_the_jacobian, _ignore_the_temperature])
def test_faults_planted_in_ais_are_caught(plant, monkeypatch):
    plant(monkeypatch)
    assert _ais_error() > 0.05


def test_ais_refuses_discrete_latents_by_name():
    def program(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z1", dist.Bernoulli(0.5))

    with pytest.raises(UsageError, match="site 'z1' is discrete"):
        evaluation.ais(program, program, torch.ones(2, 3))
