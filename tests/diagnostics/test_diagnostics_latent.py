"""Use of the latent space: rates and information with known values, collapse, traversals."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from diagnostics_cases import linear_gaussian

from guides import AmortizedGuide
from models import LATENTS, VAE
from pathscore.diagnostics import Effort, examine
from pathscore.diagnostics.latent_space import use
from pathscore.diagnostics.sections.latent import project
from pathscore.errors import UsageError


def half_used():
    """Two units: the first is N(x, ½²) under q, the second stays at the prior."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., :1], 1.0).to_event(1), obs=x)

    def guide(x):
        mean = torch.cat([x, torch.zeros_like(x)], -1)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(mean, torch.tensor([0.5, 1.0])).to_event(1))

    return model, guide, torch.randn(300, 1, generator=torch.Generator().manual_seed(0))


def test_the_rate_of_each_unit_is_its_divergence():
    model, guide, x = half_used()
    site = use(model, guide, (x,), seed=0).sites["z"]
    divergence = (0.5 * (0.25 + x**2 - 1) - np.log(0.5)).mean().item()
    assert site.rate[0] == pytest.approx(divergence, abs=0.02)
    assert site.rate[1] == pytest.approx(0, abs=1e-6)
    assert site.active.tolist() == [True, False]
    assert site.mean_variance[0] == pytest.approx(x.var().item(), rel=0.05)


def test_the_rate_splits_into_information_and_distance_of_the_aggregate():
    # q̄ is close to N(0, v), v = var x + ¼, in the first unit: information ½ log(v / ¼), distance KL(N(0, v) ‖ N(0, 1)).
    model, guide, x = half_used()
    found = use(model, guide, (x,), seed=0)
    v = x.var().item() + 0.25
    assert found.information == pytest.approx(0.5 * np.log(v / 0.25), abs=0.08)
    assert found.aggregate_gap == pytest.approx(0.5 * (v - 1 - np.log(v)), abs=0.08)
    assert found.active_share == 0.5


def test_a_joint_law_is_one_unit():
    # The exact posterior of a linear-Gaussian model has no independent units: the mean of KL(N(m, C) ‖ N(0, I)).
    model, guide, x = linear_gaussian(12)
    found = use(model, guide, (x,), seed=0)
    fn = pyro.poutine.trace(guide).get_trace(x).nodes["z"]["fn"]
    expected = torch.distributions.kl_divergence(
        fn, torch.distributions.MultivariateNormal(torch.zeros(3), torch.eye(3))
    )
    assert found.rate == pytest.approx(expected.mean().item(), abs=0.05)
    assert found.sites["z"].rate.shape == found.sites["z"].active.shape == (1,)


def test_the_divergence_of_the_marginals_is_a_lower_bound():
    model, guide, x = half_used()
    found = use(model, guide, (2 * x + 1,), seed=0)
    v, m = 4 * x.var().item() + 0.25, 2 * x.mean().item() + 1
    assert found.marginal_gap == pytest.approx(0.5 * (v + m**2 - 1 - np.log(v)), rel=0.1)
    assert found.aggregate_gap is None or found.marginal_gap <= found.aggregate_gap + 0.2
    assert use(model, guide, (x,), seed=0).marginal_gap < 0.1


def test_a_collapsed_guide_is_flagged():
    model, _, x = half_used()

    def collapsed(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).expand([len(x), 2]).to_event(1))

    (section,) = examine(model, collapsed, x, names=["latent"], effort=Effort(draws=20), strict=True)
    status = {v.name: v.status for v in section.verdicts}
    assert status["active"] == status["rate"] == "bad"
    assert "collapse" in next(v.meaning for v in section.verdicts if v.name == "rate")


def test_an_aggregate_off_the_prior_is_flagged():
    model, guide, x = half_used()
    (section,) = examine(model, guide, 6 * x + 20, names=["latent"], effort=Effort(draws=20), strict=True)
    assert {v.name: v.status for v in section.verdicts}["aggregate"] == "bad"


@pytest.mark.parametrize(("scale", "status"), [(1.0, "good"), (1.6, "watch")])
def test_standard_deviations_that_are_not_the_priors_are_not_called_good(scale, status):
    """N = 300 points of an exact guide, 2 units: four standard deviations; planted: an aggregate 1.5 times as wide."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.3).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x / 1.09, 0.09**0.5 / 1.09**0.5).to_event(1))

    x = scale * 1.09**0.5 * torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    (section,) = examine(model, guide, x, names=["latent"], effort=Effort(draws=20), strict=True)
    assert {v.name: v.status for v in section.verdicts}["aggregate"] == status


@pytest.mark.parametrize("latent", LATENTS)
def test_every_latent_family_has_its_section(latent):
    torch.manual_seed(0)
    settings = {"latent": latent, "layers": (3, 2), "classes": 3, "hidden": (8,)}
    model, guide = VAE(16, **settings), AmortizedGuide(16, **settings)
    x = (torch.rand(30, 16) < 0.5).float()
    (section,) = examine(
        model,
        guide,
        x,
        names=["latent"],
        effort=Effort(draws=10),
        labels=np.arange(30) % 3,
        image_shape=(1, 4, 4),
        strict=True,
    )
    names = {p.name for p in section.pictures}
    assert {"rate-z1", "rate-z2", "aggregate-z1", "embedding-z1"} <= names
    assert ("traversal" in names) == (latent != "categorical")
    assert ("heat-z1" in names) == (latent == "bernoulli")
    assert section.numbers["rate"] > 0 and set(section.numbers["active_units"]) == {"z1", "z2"}


def test_a_global_latent_has_no_aggregate():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    with pytest.raises(UsageError, match="has none in a plate"):
        use(model, lambda x: pyro.sample("mean", dist.Normal(0.0, 1.0)), (torch.randn(5),))


def test_projections():
    one, names = project(np.arange(5.0)[:, None], "z")
    assert one.shape == (5, 2) and names == ("z[0]", "")
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 6))
    points, names = project(plane, "z")
    assert points.shape == (50, 2) and "component 1" in names[0]
    distance = lambda a: np.linalg.norm(a[:, None] - a[None], axis=-1)  # noqa: E731
    np.testing.assert_allclose(distance(points), distance(plane), atol=1e-9)
    model, guide, x = linear_gaussian(0, rows=20)
    assert use(model, guide, (x,), draws=10, seed=0).sites["z"].means.shape == (20, 3)
