"""Amortisation and approximation gaps with known sizes, and NUTS beside the guide."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from diagnostics_cases import belief_net, linear_gaussian

from guides import AmortizedGuide
from models import LATENTS, VAE
from pathscore import exact
from pathscore.diagnostics.gaps import gaps
from pathscore.diagnostics.reference import compare, nuts
from pathscore.errors import UsageError


def correlated(offset):
    """z ~ N(0, I₂), x | z ~ N(z₁ + z₂, ½²): the posterior is correlated; the guide is a diagonal Normal, moved by
    `offset`.

    The best diagonal Normal has the posterior's mean m and variances 1/Λᵢᵢ: KL = ½ log(Λ₁₁ Λ₂₂ / det Λ).
    """
    precision = torch.eye(2) + torch.ones(2, 2) / 0.25

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 0.5).to_event(1), obs=x)

    def guide(x):
        mean = (x / 0.25) @ torch.ones(1, 2) @ torch.linalg.inv(precision)
        sign = (-1.0) ** torch.arange(len(x))[
            :, None
        ]  # every other data point the other way: one offset can't serve all
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(mean + sign * offset, precision.diagonal().rsqrt()).to_event(1))

    family = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision)).item()
    moved = 0.5 * offset**2 * precision.sum().item()
    return model, guide, torch.randn(12, 1, generator=torch.Generator().manual_seed(0)) * 1.5, family, moved


def test_the_two_gaps_have_the_sizes_that_theory_says():
    # The mean is moved by 0.3 in both coordinates: KL grows by ½ dᵀΛd exactly, which re-optimising must win back.
    model, guide, x, family, moved = correlated(0.3)
    found = gaps(model, guide, (x,), draws=4000, steps=300, seed=0)
    assert found.amortisation.mean() == pytest.approx(moved, abs=0.05)
    assert found.approximation.mean() == pytest.approx(family, abs=0.05)
    np.testing.assert_allclose(found.guide.elbo + found.amortisation + found.approximation, found.log_evidence)


def test_the_gap_of_a_discrete_guide_closes_by_score_gradients():
    model, guide, x = belief_net(rows=10)
    found = gaps(model, guide, (x,), draws=2000, steps=300, particles=16, seed=0)
    reference = exact.log_evidence(model, guide, x).numpy()
    assert found.amortisation.mean() > 0.2  # this guide is far from the best factorised one
    assert (found.best.elbo <= reference + 4 * found.best.elbo_se).all()
    assert (reference - found.best.elbo).mean() < (reference - found.guide.elbo).mean() - 0.2


def test_nothing_to_gain_at_the_exact_posterior():
    model, guide, x = linear_gaussian(0, rows=10)
    found = gaps(model, guide, (x,), draws=500, steps=150, seed=0)
    assert np.abs(found.amortisation).max() < 0.03 and np.abs(found.approximation).max() < 0.03


@pytest.mark.parametrize("latent", LATENTS)
def test_every_latent_family_can_be_reoptimised(latent):
    torch.manual_seed(0)
    settings = {"latent": latent, "layers": (3,), "classes": 3, "hidden": (8,)}
    model, guide = VAE(6, **settings), AmortizedGuide(6, **settings)
    before = [p.clone() for p in [*model.parameters(), *guide.parameters()]]
    found = gaps(model, guide, ((torch.rand(5, 6) < 0.5).float(),), draws=300, steps=80, seed=0)
    assert found.amortisation.mean() > -0.05
    assert all(torch.equal(a, b) for a, b in zip(before, [*model.parameters(), *guide.parameters()], strict=True))
    assert all(p.grad is None for p in guide.parameters())


def test_guides_that_cannot_be_reoptimised_are_refused():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(torch.zeros(len(x)), 1.0), obs=x)

    def flow(x):
        base = dist.Normal(torch.zeros(len(x)), 1.0)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.TransformedDistribution(base, [dist.transforms.SigmoidTransform().inv]))

    with pytest.raises(UsageError, match="can't be re-optimised"):
        gaps(model, flow, (torch.rand(3),), steps=1)

    def joint(x):
        pyro.sample("mean", dist.Normal(0.0, 1.0))

    with pytest.raises(UsageError, match="all data points share a latent"):
        gaps(joint, joint, (torch.rand(3),), steps=1)


def test_nuts_agrees_with_the_exact_posterior_and_not_with_a_shifted_one():
    model, guide, x = linear_gaussian(0, rows=2)
    found = nuts(model, guide, (x,), chains=2, warmup=60, draws=80, seed=0)
    assert found.mixed and found.ess.min() > 25
    # The largest of six differences of means, each with a standard error of about 1/√ess.
    assert np.abs(found.shift).max() < 5 * np.sqrt(1 / found.ess.min() + 1 / 1000)
    assert 0.7 < found.scale.min() <= found.scale.max() < 1.4
    moved = compare(*chains_and_draws(shift=1.0))
    assert np.abs(moved.shift).min() > 0.8


def chains_and_draws(shift=0.0, stuck=False):
    rng = np.random.default_rng(0)
    chains = rng.normal(size=(2, 300, 3))
    if stuck:
        chains[1] += 5
    return chains, rng.normal(size=(1000, 3)) + shift


def test_chains_that_disagree_do_not_judge_the_guide():
    assert compare(*chains_and_draws()).mixed
    assert not compare(*chains_and_draws(stuck=True)).mixed
    constant = np.zeros((2, 50, 1))
    assert not compare(constant, np.zeros((10, 1))).mixed  # R-hat is NaN


def test_nuts_refuses_discrete_latents():
    model, guide, x = belief_net(rows=2)
    with pytest.raises(UsageError, match="needs continuous latents"):
        nuts(model, guide, (x,))
