"""What `to_arviz` and `mcmc_to_arviz` return is what ArviZ's own functions take, on every supported Python."""

import logging

import arviz as az
import matplotlib
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS

from pathscore import mcmc_to_arviz, to_arviz

OLD = "InferenceData" in vars(az)
PLOTS = ("plot_trace", "plot_forest", "plot_posterior" if OLD else "plot_dist")


def model(x, centre=0.0):
    m = pyro.sample("m", dist.Normal(centre, 3.0))
    with pyro.plate("d", len(x)):
        pyro.sample("x", dist.Normal(m, 1.0), obs=x)


def guide(x):
    pyro.sample("m", dist.Normal(2.0, 0.25))


@pytest.fixture(scope="module")
def draws():
    torch.manual_seed(0)
    return to_arviz(model, guide, torch.randn(20) + 2, 300, seed=0)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.setattr(logging.getLogger("arviz"), "disabled", True)  # one chain has no R-hat: said by ArviZ each time


def test_summary_has_the_moments_of_the_guide(draws):
    table = az.summary(draws, kind="stats", **({"round_to": "none"} if OLD else {}))
    assert float(table.loc["m", "mean"]) == pytest.approx(2.0, abs=0.06)
    assert float(table.loc["m", "sd"]) == pytest.approx(0.25, abs=0.05)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::RuntimeWarning")
class TestFunctions:
    def test_loo_and_compare(self, draws):
        assert az.loo(draws).n_data_points == 20
        other = to_arviz(lambda x: model(x, 1.0), guide, torch.randn(20) + 2, 300, seed=1)
        assert len(az.compare({"a": draws, "b": other})) == 2

    @pytest.mark.parametrize("name", PLOTS)
    def test_plots(self, draws, name):
        assert getattr(az, name)(draws) is not None


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_chains_too():
    torch.manual_seed(0)
    run = MCMC(NUTS(model), num_samples=30, warmup_steps=30, disable_progbar=True)
    run.run(torch.randn(20) + 2)
    assert "m" in az.summary(mcmc_to_arviz(run)).index


def test_a_file_is_read_back_by_arviz(tmp_path):
    to_arviz(model, guide, torch.randn(10), 20, path=tmp_path / "p.nc", seed=0)
    draws = az.from_netcdf(tmp_path / "p.nc")
    assert draws["posterior"]["m"].shape == (1, 20)
    draws.close()
