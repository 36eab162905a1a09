"""Missing values against exact sums: a chain with a poor guide must still have the right mean.

N = 400 chains of 100 steps for each of two data points; 4 missing values each. A |z| above 4.5 fails: false-alarm rate
8 × 7e-6 = 5e-5 a program. The standard error of a mean is at most 0.025, so a bias of 0.12 is found almost surely.
"""

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist

from guides import AmortizedGuide
from models import VAE
from pathscore.errors import UsageError
from pathscore.svi import SVI
from pathscore.trained import imputing
from pathscore.trained.trained import Trained

CHAINS, STEPS, LIMIT = 400, 100, 4.5
WIDTH, MISSING = 8, [0, 2, 5, 7]


def pair(latent: str) -> tuple[VAE, AmortizedGuide]:
    """A small net with strong weights, and a guide that has not been trained."""
    torch.manual_seed(3)
    sizes = {"data_size": WIDTH, "layers": (4,), "hidden": (), "trunk": "linear", "latent": latent, "classes": 3}
    model, guide = VAE(**sizes), AmortizedGuide(**sizes)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.copy_(1.5 * torch.randn(parameter.shape))
        for parameter in guide.parameters():
            parameter.mul_(0.7)
    return model, guide


def exact(model: VAE, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
    """E[x_m | x_o] by the sum over all states of z."""
    law = model.latents[0](model.prior)
    states = law.enumerate_support()  # (S, *event)
    mean = model.decode(states)  # (S, X)
    each = dist.Bernoulli(mean).log_prob(x[:, None]) * ~missing[:, None]  # (N, S, X)
    weights = (each.sum(-1) + law.log_prob(states)).softmax(-1)
    return torch.where(missing, weights @ mean, x)


def z_scores(latent: str) -> torch.Tensor:
    """(mean over chains − exact) / standard error of each missing value."""
    model, guide = pair(latent)
    x = torch.bernoulli(torch.full((2, WIDTH), 0.5), generator=torch.Generator().manual_seed(5))
    missing = torch.zeros_like(x, dtype=torch.bool)
    missing[:, MISSING] = True
    trained = Trained(SVI(model, guide, publish=False), (x,))
    many = trained.impute(x.repeat(CHAINS, 1), missing.repeat(CHAINS, 1), chains=1, steps=STEPS)
    found = many.unflatten(0, (CHAINS, 2))
    assert torch.equal(found[:, ~missing], x[~missing].expand(CHAINS, -1))
    error = found.std(0) / CHAINS**0.5
    return ((found.mean(0) - exact(model, x, missing)) / error)[missing]


@pytest.mark.parametrize("latent", ["bernoulli", "categorical"])
def test_the_mean_is_that_of_the_sum_over_all_states(latent):
    assert z_scores(latent).abs().max() < LIMIT


def test_a_chain_without_acceptance_is_caught(monkeypatch):
    """The planted fault: the pseudo-Gibbs chain, which is wrong where the guide is."""
    step = imputing.Chains.step
    monkeypatch.setattr(imputing.Chains, "step", lambda self, always: step(self, True))
    assert z_scores("bernoulli").abs().max() > 2 * LIMIT


def normal_model(x):
    weight = torch.tensor([[1.0, -0.5, 2.0], [0.3, 1.2, -1.0]])
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ weight, 0.8).to_event(1), obs=x)


def prior_guide(x):
    scale = pyro.param("scale", torch.ones(2))
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(torch.zeros(2), scale).to_event(1))


def test_the_mean_of_a_linear_normal_program_is_the_closed_form():
    """x ~ N(0, WᵀW + 0.64 I); the guide does not look at the data at all. N = 400 chains, |z| < 4.5 on one value."""
    weight = torch.tensor([[1.0, -0.5, 2.0], [0.3, 1.2, -1.0]])
    covariance = weight.T @ weight + 0.64 * torch.eye(3)
    x = torch.tensor([[0.7, float("nan"), -1.0]])
    seen, lost = [0, 2], [1]
    gain = covariance[lost][:, seen] @ covariance[seen][:, seen].inverse()
    expected = (gain @ x[0, seen]).item()
    trained = Trained(SVI(normal_model, prior_guide, publish=False))
    found = trained.impute(x.repeat(CHAINS, 1), chains=1, steps=STEPS)[:, 1]
    assert abs(found.mean().item() - expected) < LIMIT * found.std().item() / CHAINS**0.5


def test_results_have_the_form_and_shape_of_the_data():
    model, guide = pair("bernoulli")
    trained = Trained(SVI(model, guide, publish=False))
    x = np.zeros((3, WIDTH))
    mask = np.zeros((3, WIDTH), dtype=bool)
    mask[1, 4] = True
    found = trained.impute(x, mask, steps=8, chains=2)
    assert isinstance(found, np.ndarray) and found.shape == x.shape and (found[~mask] == 0).all()
    draws = trained.impute(x, mask, steps=8, chains=2, draws=True)
    assert draws.shape == (2, 3, WIDTH) and set(np.unique(draws)) <= {0.0, 1.0}


def test_what_cannot_be_imputed_is_refused_in_one_line():
    model, guide = pair("bernoulli")
    trained = Trained(SVI(model, guide, publish=False))
    x = torch.zeros(3, WIDTH)
    with pytest.raises(UsageError, match=r"mask has shape \(3, 2\)"):
        trained.impute(x, torch.zeros(3, 2))
    with pytest.raises(UsageError, match="give booleans"):
        trained.impute(x, x + 2)
    with pytest.raises(UsageError, match="at least 4 steps"):
        trained.impute(x, x, steps=2)

    def joint(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.MultivariateNormal(z[..., None] + torch.zeros(2), torch.eye(2)), obs=x)

    def guide_of_joint(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(UsageError, match="independent given the latent variables"):
        Trained(SVI(joint, guide_of_joint, publish=False)).impute(torch.zeros(2, 2), torch.eye(2))


def test_chains_that_hardly_move_are_reported():
    def broad(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(2), 300.0).to_event(1))

    trained = Trained(SVI(normal_model, broad, publish=False))
    with pytest.warns(UserWarning, match="the guide is poor at these rows"):
        trained.impute(torch.zeros(3, 3), torch.eye(3), steps=100, chains=1)
