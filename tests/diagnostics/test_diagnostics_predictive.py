"""Checks of the model against data: levels under a right model, power against a wrong one, PAVA by definition."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from diagnostics_cases import belief_net, linear_gaussian
from sklearn.isotonic import IsotonicRegression

from pathscore.diagnostics import Effort, examine
from pathscore.diagnostics.calibration import calibrate
from pathscore.diagnostics.predictive import check
from pathscore.diagnostics.reliability import curve, reliability
from pathscore.errors import UsageError


def section(model, guide, x, seed=0):
    (found,) = examine(model, guide, x, names=["predictive"], effort=Effort(draws=2, seed=seed), strict=True)
    return found


def test_a_right_model_passes_whatever_the_guide():
    # The belief net's guide is not exact: the checks are about the model, and compare the guide's optimism with itself.
    # False-alarm rate 1e-3 (ranks) and about 1e-3 (reliability, four standard deviations of ten sets) a seed.
    for seed in range(8):
        model, guide, x = belief_net(seed, rows=200)
        assert [v.name for v in section(model, guide, x, seed).verdicts if v.flagged] == []


def test_a_model_with_too_much_ink_is_found():
    model, guide, x = belief_net(0, rows=200)
    more = torch.maximum(x, torch.bernoulli(torch.full_like(x, 0.3)))
    status = {v.name: v.status for v in section(model, guide, more).verdicts}
    assert status["counts"] == "bad" and status["reliability"] in ("watch", "bad")


def test_probabilities_that_are_bolder_than_the_model_says_are_found():
    # Same marginal frequencies, but each pixel is a coin that the model does not know of: overconfident predictions.
    model, guide, x = belief_net(0, rows=300)
    shuffled = torch.stack([column[torch.randperm(len(x))] for column in x.T], 1)
    assert {v.name: v.flagged for v in section(model, guide, shuffled).verdicts}["reliability"]


def test_real_data_are_summarised_by_their_mean():
    model, guide, x = linear_gaussian(0)
    found = check(model, guide, (x,), seed=0)
    assert found.statistic == "mean" and found.p_value > 1e-3
    assert found.prior.shape == found.posterior.shape == (99, 200)
    assert check(model, guide, (x + 2,), seed=0).p_value < 1e-3
    made = section(model, guide, x)
    assert [v.name for v in made.verdicts] == ["counts"] and not made.notes


def test_ranks_are_uniform_under_the_model():
    # 2 000 data: four standard errors of the mean and of the variance of uniform values.
    model, guide, x = belief_net(1, rows=2000)
    pit = check(model, guide, (x,), seed=0).pit
    assert pit.mean() == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / 2000))
    assert pit.var() == pytest.approx(1 / 12, abs=4 * np.sqrt(1 / 180 / 2000))


def test_pava_is_isotonic_regression():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(size=500)
    observed = (rng.uniform(size=500) < predicted**2).astype(float)
    found = curve(predicted, observed, groups=500)
    expected = IsotonicRegression().fit_transform(np.sort(predicted), observed[np.argsort(predicted)])
    np.testing.assert_allclose(found.observed, expected, atol=1e-12)
    assert (np.diff(curve(predicted, observed).observed) >= 0).all()


def test_reliability_needs_zeros_and_ones():
    model, guide, x = belief_net(rows=10)
    with pytest.raises(UsageError, match="needs 0/1 data"):
        reliability(model, guide, (x * 0.5,))
    with pytest.raises(UsageError, match="an argument of its own"):
        reliability(lambda n: model(x), lambda n: guide(x), (3,))


def two_sites(x, y):
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("a", dist.Normal(z, 1.0), obs=x)
        pyro.sample("b", dist.Bernoulli(logits=z), obs=y)


def guide_of_two(x, y):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(x / 2 + 0.3 * (y - 0.5), 0.65))


def test_every_observed_site_has_its_checks():
    torch.manual_seed(0)
    z = torch.randn(300)
    x, y = torch.normal(z, 1.0), torch.bernoulli(torch.sigmoid(z))
    found = section(two_sites, guide_of_two, (x, y))
    assert [v.name for v in found.verdicts] == ["counts", "counts", "reliability"]
    assert not any(v.flagged for v in found.verdicts) and set(found.numbers) == {"a", "b"}
    assert [p.name for p in found.pictures] == ["rootogram-a", "counts-a", "rootogram-b", "counts-b", "pava-b"]
    # The planted fault: one of the two is wrong, and it is named.
    first, second, _ = section(two_sites, guide_of_two, (x + 1, y)).verdicts
    assert first.flagged and "(a, mean: " in first.value and not second.flagged


def test_calibration_simulates_every_observed_site():
    x, y = torch.randn(20), torch.ones(20)
    found = calibrate(two_sites, guide_of_two, (x, y), replicates=40, draws=9, seed=0)
    assert found.pit["z"].shape == (40, 1)
    blind = calibrate(two_sites, lambda x, y: guide_of_two(x, 1 - y), (x, y), replicates=2000, draws=19, seed=0)
    right = calibrate(two_sites, guide_of_two, (x, y), replicates=2000, draws=19, seed=0)
    assert right.uniformity()[0] > 1e-3 > blind.uniformity()[0]  # the guide is asked about the simulated labels


def test_a_site_has_to_be_named_where_there_are_several():
    with pytest.raises(UsageError, match="exactly one observed site, the model has a, b"):
        check(two_sites, guide_of_two, (torch.randn(5), torch.ones(5)))
    assert check(two_sites, guide_of_two, (torch.randn(5), torch.ones(5)), "b").statistic == "number of ones"
