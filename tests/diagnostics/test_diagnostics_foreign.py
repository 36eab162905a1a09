"""Programs that were written for Pyro and not for this project: what can be said of them is said, the rest refused.

Each program is one that a plain run with `SVI` or `MCMC` takes: no argument, an argument of another shape, parameters
for each data point, a point estimate, latents that data share, `pyro.factor`, single numbers.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import AutoDelta, AutoNormal

from pathscore.diagnostics import Effort, examine
from pathscore.diagnostics.arviz import draw_tree as to_arviz
from pathscore.diagnostics.mcmc import chain_tree as mcmc_to_arviz

# The guides are examined as they are made: what is looked at is what can be said, not how good they are.
pytestmark = pytest.mark.filterwarnings("ignore:.*with the first value:pathscore.svi.pairs.UntrainedWarning")

QUICK = Effort(draws=60, replicates=60, gap_points=4, gap_steps=5, chain_points=1, chain_draws=40, check_draws=19)


def examined(model, guide, x, *names, effort=QUICK):
    return {v.name: v for s in examine(model, guide, x, names=names or None, effort=effort) for v in s.verdicts}


def shared_mean(x):
    """One latent for all the data."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("x", dist.Normal(mean, 0.5), obs=x)


def shared_mean_guide(x):
    precision = 1 + len(x) / 0.25
    pyro.sample("mean", dist.Normal(x.sum() / 0.25 / precision, precision**-0.5))


def local(x):
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_single_numbers_and_factors_are_written_to_a_file(tmp_path):
    def model(coins):
        fairness = pyro.sample("fairness", dist.Beta(10.0, 10.0))
        pyro.factor("penalty", -fairness)
        for i, coin in enumerate(coins):
            pyro.sample(f"coin_{i}", dist.Bernoulli(fairness), obs=coin)

    def guide(coins):
        pyro.sample("fairness", dist.Beta(12.0, 11.0))

    coins = torch.tensor([1.0, 1.0, 0.0])
    tree = to_arviz(model, guide, coins, 7, path=tmp_path / "p.nc", seed=0)
    assert (
        set(tree["observed_data"].data_vars) == set(tree["log_likelihood"].data_vars) == {f"coin_{i}" for i in range(3)}
    )
    p = torch.tensor(tree["posterior"]["fairness"].values)
    expected = dist.Beta(10.0, 10.0).log_prob(p) - p + 2 * p.log() + (1 - p).log()
    np.testing.assert_allclose(tree["sample_stats"]["lp"], expected, atol=1e-4)
    xarray.testing.assert_equal(
        tree["posterior"].to_dataset().load(), to_arviz(model, guide, coins, 7, seed=0)["posterior"].to_dataset()
    )
    tree.close()


def test_a_program_without_arguments():
    x = torch.randn(9)
    found = examined(lambda: shared_mean(x), lambda: shared_mean_guide(x), ())
    assert found["joint_gap"].status == "good" and found["joint_ess"].status == "good"
    assert not [v for v in found.values() if "Error" in v.meaning], found


def test_chains_take_all_the_data_where_a_latent_is_shared():
    # A guide with parameters of its own, exact for all the data: on the first data point alone it would be too narrow.
    x = torch.randn(200, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.7
    verdict = examined(shared_mean, lambda _: shared_mean_guide(x), x, "chains")["chains"]
    assert verdict.status == "good", verdict


def test_data_that_share_a_latent_are_compared_as_a_whole():
    """A right model passes (each summary conservative at 1 %); data with twice the standard deviation do not.

    Ranks of the data under the model would all lie on the side on which the shared latent happened to be.
    """
    for seed in range(10):
        x = torch.randn(200, generator=torch.Generator().manual_seed(seed)) * 0.5 + 1.0
        found = examined(shared_mean, shared_mean_guide, x, "predictive")
        assert set(found) == {"ppc"} and found["ppc"].status == "good", found
        wrong = examined(shared_mean, shared_mean_guide, 2 * (x - 1) + 1, "predictive")["ppc"]
        assert wrong.status == "bad" and wrong.about == "model" and "standard deviation" in wrong.value


def test_a_point_estimate_is_not_called_good():
    for model in (shared_mean, local):
        pyro.clear_param_store()
        found = examined(model, AutoDelta(model), torch.randn(6), "importance", "gaps")
        assert found["gap"].status == "bad" and found["gap"].value == "infinite"
        assert "point estimates in the guide" in found["gaps"].meaning
        assert "relative_ess" not in found


def test_a_guide_with_parameters_for_each_data_point_is_not_asked_about_other_data():
    pyro.clear_param_store()
    x = torch.randn(5)
    found = examined(local, AutoNormal(local), x, effort=Effort(**{**vars(QUICK), "gap_points": 5}))
    assert "don't depend on its arguments" in found["calibration"].meaning
    assert "3 of the 5 rows" not in found["amortisation"].meaning
    # Its Delta sites carry a density, which is no parameter to optimise: the ELBO would rise without end.
    assert found["approximation"].status != "unknown"
    gap = [float(found[name].value.split()[0]) for name in ("amortisation", "approximation")]
    assert gap[0] < 3 and gap[1] > -0.2
    pyro.clear_param_store()


def test_a_plate_of_fixed_size_is_said_to_be_one():
    def fixed(x):
        with pyro.plate("data", 6, dim=-1):
            k = pyro.sample("k", dist.Categorical(torch.ones(3) / 3))
            pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", 6, dim=-1):
            pyro.sample("k", dist.Categorical(torch.ones(6, 3)))

    found = examined(fixed, guide, torch.randn(6), "gaps")
    assert "4 of the 6 rows of plate 'data'" in found["gaps"].meaning
    assert (
        "Error"
        not in examined(fixed, guide, torch.randn(6), "gaps", effort=Effort(gap_steps=3))["amortisation"].meaning
    )


def test_data_that_the_model_flattens_are_calibrated():
    weight = torch.eye(4)

    def model(images):
        with pyro.plate("data", len(images), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight, 1.0).to_event(1), obs=images.reshape(-1, 4))

    def guide(images):
        with pyro.plate("data", len(images), dim=-1):
            pyro.sample("z", dist.Normal(images.reshape(-1, 4) / 2, 0.5**0.5).to_event(1))

    found = examined(model, guide, torch.randn(30, 1, 2, 2), "calibration")
    assert found["ranks"].status == found["coverage"].status == "good"


def test_a_subsampled_plate_is_not_given_to_nuts():
    data = torch.randn(20)

    def model(data):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 20, subsample_size=5) as rows:
            pyro.sample("x", dist.Normal(mean, 1.0), obs=data[rows])

    def guide(data):
        pyro.sample("mean", dist.Normal(0.0, 0.3))

    found = examined(model, guide, data)
    assert "NUTS needs all the data" in found["chains"].meaning
    assert not [v for v in found.values() if "IndexError" in v.meaning]


def test_arguments_by_name_of_an_mcmc_run():
    def model(x=None):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 4):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    run = MCMC(NUTS(model), num_samples=4, warmup_steps=4, disable_progbar=True)
    x = torch.randn(4)
    run.run(x=x)
    tree = mcmc_to_arviz(run)
    assert "summed_out" not in tree.attrs
    np.testing.assert_allclose(tree["observed_data"]["x"], x)


def test_a_plate_along_another_side_of_the_data():
    def chain(x):  # time first, as sequences often come
        with pyro.plate("sequence", x.shape[1], dim=-1):
            z = torch.zeros(x.shape[1])
            for t in pyro.markov(range(len(x))):
                z = pyro.sample(f"z_{t}", dist.Normal(0.9 * z, 1.0))
                pyro.sample(f"x_{t}", dist.Normal(z, 1.0), obs=x[t])

    def guide(x):
        with pyro.plate("sequence", x.shape[1], dim=-1):
            for t in range(len(x)):
                pyro.sample(f"z_{t}", dist.Normal(x[t] / 2, 0.7))

    found = examined(chain, guide, torch.randn(6, 3), "importance", "gaps", "latent")
    assert found["exact_kl"].status != "unknown" and found["amortisation"].status != "unknown"
    assert not [v for v in found.values() if "IndexError" in v.meaning]
