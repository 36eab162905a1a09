"""Sites of the model alone: discrete ones are summed out and drawn from their posterior, others refused by name.

N = 4 000 draws of each assignment; the mean of one may differ from the exact probability by 4.5 standard errors
(false-alarm rate 7e-6 each, detectable bias 0.036). The planted fault is a draw from the prior, as it was before.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.ops.indexing import Vindex

from pathscore import evaluate, examine, measure, to_arviz
from pathscore.diagnostics import programs
from pathscore.errors import UsageError

X = torch.tensor([-1.0, 0.2, 2.0])
LOCS = torch.tensor([-1.0, 1.5])
PRIOR = torch.tensor([0.3, 0.7])


def mixture(indexed):
    def model(x):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Categorical(PRIOR))
            locs = m.unsqueeze(-1) + LOCS
            loc = locs[a] if indexed else Vindex(locs)[..., a]
            pyro.sample("x", dist.Normal(loc, 0.9), obs=x)

    return model


def guide(x):
    pyro.sample("m", dist.Normal(0.4, 1e-4))


def joint(x=X):
    """log p(x_n, a_n | m = 0.4), (N, 2)."""
    return PRIOR.log() + dist.Normal(0.4 + LOCS, 0.9).log_prob(x[:, None])


def misses(tree, draws):
    """How many standard errors the mean of each assignment is away from p(a = 1 | x)."""
    found = np.asarray(tree["posterior"]["a"])[0].mean(0)
    right = joint().softmax(-1)[:, 1].numpy()
    return np.abs(found - right) / np.sqrt(right * (1 - right) / draws)


@pytest.mark.parametrize("indexed", [False, True])
def test_assignments_come_from_their_posterior_and_leave_the_weights_right(indexed):
    draws = 400 if indexed else 4000  # draw by draw, where the program does not broadcast
    tree = to_arviz(mixture(indexed), guide, X, draws, seed=0, prior_draws=0, predictive_draws=10)
    assert misses(tree, draws).max() < 4.5
    z = np.asarray(tree["posterior"]["m"])[0]
    marginal = joint().logsumexp(-1)
    lp = np.asarray(tree["sample_stats"]["lp"])[0]
    prior = dist.Normal(0.0, 1.0).log_prob(torch.tensor(z)).numpy()
    np.testing.assert_allclose(lp, prior + marginal.sum().item(), atol=2e-3)
    weight = lp - dist.Normal(0.4, 1e-4).log_prob(torch.tensor(z)).numpy()
    np.testing.assert_allclose(np.asarray(tree["sample_stats"]["log_weight"])[0], weight, atol=2e-3)
    likelihood = np.asarray(tree["log_likelihood"]["x"])[0].mean(0)
    np.testing.assert_allclose(likelihood, marginal, atol=2e-3)
    assert tree["posterior_predictive"]["x"].shape == (1, 10, 3)


def test_draws_from_the_prior_would_be_found(monkeypatch):
    monkeypatch.setattr(programs, "drawn", lambda model, names, dim: model)
    tree = to_arviz(mixture(False), guide, X, 4000, seed=0, prior_draws=0, predictive_draws=0)
    assert misses(tree, 4000).max() > 4.5


def test_local_latents_keep_a_weight_for_each_data_point_and_subsamples_their_scale():
    def model(x):
        with pyro.plate("data", 6, subsample_size=3, dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))
            a = pyro.sample("a", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(z + 2 * a, 1.0), obs=x)

    def local(x):
        with pyro.plate("data", 6, subsample_size=3, dim=-1):
            pyro.sample("z", dist.Normal(x / 3, 1.0))

    tree = to_arviz(model, local, X, 50, seed=0, prior_draws=0, predictive_draws=0)
    z = torch.tensor(np.asarray(tree["posterior"]["z"])[0])
    p = (
        torch.stack([dist.Normal(z + 2 * a, 1.0).log_prob(X) for a in (0, 1)])
        + torch.tensor([0.7, 0.3]).log()[:, None, None]
    )
    lp = dist.Normal(0.0, 1.0).log_prob(z) + p.logsumexp(0)
    np.testing.assert_allclose(np.asarray(tree["sample_stats"]["lp"])[0], lp, atol=1e-4)


def test_a_site_that_several_data_points_share_is_summed_over_all_of_them():
    def model(x):
        a = pyro.sample("a", dist.Bernoulli(0.3))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z + 2 * a, 1.0), obs=x)

    def local(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 3, 1.0))

    tree = to_arviz(model, local, X, 20, seed=0, prior_draws=0, predictive_draws=0)
    z = torch.tensor(np.asarray(tree["posterior"]["z"])[0])
    p = torch.stack([dist.Normal(z + 2 * a, 1.0).log_prob(X).sum(-1) for a in (0, 1)])
    lp = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) + (p + torch.tensor([0.7, 0.3]).log()[:, None]).logsumexp(0)
    np.testing.assert_allclose(np.asarray(tree["sample_stats"]["lp"])[0], lp, atol=1e-4)


def test_the_verdict_on_a_good_guide_is_good():
    """The exact posterior as the guide: the gap is 0, where the prior's assignments made it hundreds of nats."""

    def model(x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Bernoulli(0.4))
            a = pyro.sample("a", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(5 * a + b, 1.0), obs=x)

    def exact(x):
        with pyro.plate("data", len(x)):
            table = torch.stack(
                [dist.Normal(5.0 * a + torch.tensor([0.0, 1.0]), 1.0).log_prob(x[:, None]) for a in (0, 1)]
            )
            log_b = (table + torch.tensor([0.7, 0.3]).log()[:, None, None]).logsumexp(0)
            pyro.sample("b", dist.Bernoulli(logits=(log_b[:, 1] + np.log(0.4)) - (log_b[:, 0] + np.log(0.6))))

    (section,) = examine(model, exact, torch.tensor([0.1, 5.2, 4.0]), names=["importance"])
    assert section.numbers["gap"][0] == pytest.approx(0, abs=1e-4)


def test_a_forgotten_site_is_refused_by_name_everywhere():
    def model(x):
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Normal(torch.zeros(len(x)), 1.0))
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z + w, 1.0), obs=x)

    def forgetful(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    for function in (to_arviz, examine, measure, evaluate):
        with pytest.raises(UsageError, match=r"'w'.*add it"):
            function(model, forgetful, X)
