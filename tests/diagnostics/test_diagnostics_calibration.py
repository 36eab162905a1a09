"""Ranks and coverage: exact under the null for continuous and discrete latents, and the words for what is wrong."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from diagnostics_cases import linear_gaussian

from pathscore.diagnostics.calibration import ALPHA, calibrate
from pathscore.errors import UsageError


def coin(flip=0.0):
    """b ~ Bernoulli(0.3), x = b with probability 0.8, and the exact posterior with its logit moved by `flip`."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            b = pyro.sample("b", dist.Bernoulli(torch.tensor([0.3])).to_event(1))
            pyro.sample("x", dist.Bernoulli(0.2 + 0.6 * b).to_event(1), obs=x)

    def guide(x):
        odds = torch.where(x > 0.5, 0.3 * 0.8 / (0.7 * 0.2), 0.3 * 0.2 / (0.7 * 0.8))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("b", dist.Bernoulli(logits=odds.log() + flip).to_event(1))

    return model, guide, torch.zeros(500, 1)


def test_ties_are_broken_so_that_discrete_ranks_are_uniform():
    found = calibrate(*coin()[:2], (coin()[2],), replicates=4000, seed=0)
    p, _ = found.uniformity()
    assert p > ALPHA
    assert all(c.p_value > ALPHA for c in found.coverage())
    # Four standard errors of a mean and of a variance of 4 000 uniform values.
    pit = found.all[:, 0]
    assert pit.mean() == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / 4000))
    assert pit.var() == pytest.approx(1 / 12, abs=4 * np.sqrt(1 / 180 / 4000))


def test_a_wrong_discrete_guide_is_found():
    # Logits off by 1 move the rank of the truth by a detectable 0.05 – 0.1 at 4 000 replicates.
    p, _ = calibrate(*coin(1.0)[:2], (coin()[2],), replicates=4000, seed=0).uniformity()
    assert p < ALPHA


def test_broken_ties_matter():
    # The planted fault: counting ties as "less" piles discrete ranks up at one end.
    model, guide, x = coin()
    found = calibrate(model, guide, (x,), replicates=500, seed=0)
    rng = np.random.default_rng(0)
    truth, drawn = rng.random(500) < 0.3, rng.random((99, 500)) < 0.3
    naive = (drawn <= truth).sum(0) / 99
    assert naive.mean() > 0.7 > 0.6 > found.all.mean()


@pytest.mark.parametrize(
    ("fault", "word"), [({"shift": 0.7}, "shifted"), ({"scale": 0.5}, "too narrow"), ({"scale": 2.0}, "too wide")]
)
def test_what_is_wrong_is_named(fault, word):
    model, guide, x = linear_gaussian(2, **fault)
    found = calibrate(model, guide, (x,), replicates=400, seed=0)
    p, worst = found.uniformity()
    assert p < ALPHA
    assert found.shape(worst) == word
    assert found.coordinate(worst).startswith("z[")


def test_coverage_of_a_narrow_guide_is_what_theory_says():
    # A guide with half the posterior's scale: its central 80 % interval holds Φ(0.64) − Φ(−0.64) = 0.478.
    model, guide, x = linear_gaussian(2, scale=0.5)
    covered = calibrate(model, guide, (x,), replicates=3000, seed=0).coverage((0.8,))[0]
    assert covered.observed == pytest.approx(0.478, abs=5 * covered.standard_error + 0.01)
    assert 0 < covered.standard_error < 0.02


def test_replicates_ride_on_the_data_plate():
    model, guide, x = linear_gaussian(0, rows=7)
    assert calibrate(model, guide, (x,), replicates=30, draws=19, seed=1).all.shape == (30, 3)


def test_programs_that_are_not_amortised_are_refused():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(mean, 1.0).expand([3]).to_event(1), obs=x)

    def guide(x):
        pyro.sample("mean", dist.Normal(x.mean(), 0.1))

    with pytest.raises(UsageError, match="mean are not"):
        calibrate(model, guide, (torch.randn(4, 3),))
    linear, exact_guide, x = linear_gaussian()
    with pytest.raises(UsageError, match="as an argument of its own"):
        calibrate(lambda y: linear(x), lambda y: exact_guide(x), (None,))
