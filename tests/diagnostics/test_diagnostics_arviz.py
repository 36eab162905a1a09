"""Guide draws in ArviZ's schema: names, shapes, types and weights of any pair, in memory and in a file."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from diagnostics_cases import belief_net, linear_gaussian
from nbclient import NotebookClient
from pyro.infer import MCMC, NUTS, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from guides import AmortizedGuide
from models import LATENTS, VAE
from pathscore.diagnostics.arviz import draw_tree as to_arviz
from pathscore.diagnostics.mcmc import chain_tree as mcmc_to_arviz
from pathscore.errors import NumericsError, UsageError
from pathscore.reports.diagnosing import NOTEBOOK

GROUPS = {
    "posterior",
    "sample_stats",
    "log_likelihood",
    "posterior_predictive",
    "prior",
    "prior_predictive",
    "observed_data",
}


def regression(x, y):
    """A global slope, a local scale, two plates, a subsample, and a computed quantity."""
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("groups", 3, dim=-2):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x), dim=-1):
            pyro.deterministic("line", level + slope * x, event_dim=0)
            pyro.sample("y", dist.Normal(level + slope * x, 0.5), obs=y)


def regression_guide(x, y):
    pyro.sample("slope", dist.Normal(0.5, 0.1))
    with pyro.plate("groups", 3, dim=-2):
        pyro.sample("level", dist.Normal(0.0, 0.3))


def test_the_groups_dimensions_and_coordinates_of_a_local_program():
    model, guide, x = belief_net(rows=7)
    tree = to_arviz(
        model,
        guide,
        x,
        20,
        event_dims={"x": ["pixel"]},
        coords={"pixel": [f"p{i}" for i in range(12)]},
        attrs={"run_id": "r1"},
        seed=0,
    )
    assert set(tree.children) == GROUPS
    z = tree["posterior"]["z"]
    assert z.dims == ("chain", "draw", "data", "z_dim_0") and z.shape == (1, 20, 7, 10)
    assert tree["posterior_predictive"]["x"].dims == ("chain", "draw", "data", "pixel")
    assert list(tree["observed_data"]["pixel"].values[:2]) == ["p0", "p1"]
    assert tree["sample_stats"]["log_weight"].dims == ("chain", "draw", "data")
    assert tree["log_likelihood"]["x"].shape == (1, 20, 7)
    assert z.dtype == tree["posterior_predictive"]["x"].dtype == tree["observed_data"]["x"].dtype == np.int8
    np.testing.assert_array_equal(tree["observed_data"]["x"].values, x.numpy())
    for group in GROUPS:
        attrs = tree[group].attrs
        assert attrs["inference_library"] == "pyro" and attrs["run_id"] == "r1" and "created_at" in attrs
        assert {"inference_library_version", "torch_version"} <= set(attrs)


def test_the_statistics_are_those_of_the_stored_draws():
    model, guide, x = belief_net(rows=5)
    tree = to_arviz(model, guide, x, 6, seed=0)
    stats = tree["sample_stats"]
    np.testing.assert_allclose(stats["log_weight"], stats["lp"] - stats["log_q"])
    z = torch.tensor(tree["posterior"]["z"].values[0]).float()  # (S, N, 10)
    with torch.no_grad():
        trace = pyro.poutine.trace(guide).get_trace(x)
    log_q = dist.Bernoulli(logits=trace.nodes["z"]["fn"].base_dist.logits).to_event(1).log_prob(z)
    np.testing.assert_allclose(stats["log_q"].values[0], log_q, atol=1e-4)
    prior = -10 * np.log(2)
    np.testing.assert_allclose(stats["lp"].values[0] - tree["log_likelihood"]["x"].values[0], prior, atol=1e-4)


def test_one_draw_has_the_weight_that_pyros_elbo_gives_it():
    model, guide, x = linear_gaussian(0, scale=1.5, rows=6)
    loss = None
    tree = None
    for run in ("elbo", "tree"):
        torch.manual_seed(4)
        if run == "elbo":
            loss = Trace_ELBO(max_plate_nesting=1).loss(model, guide, x)
        else:
            torch.manual_seed(4)
            tree = to_arviz(model, guide, x, 1, prior_draws=0, predictive_draws=0)
    assert float(tree["sample_stats"]["log_weight"].sum()) == pytest.approx(-loss, abs=1e-3)


def test_a_global_latent_gives_one_weight_a_draw():
    x, y = torch.linspace(-1, 1, 5), torch.randn(3, 5)
    tree = to_arviz(regression, regression_guide, (x, y), 8, seed=0)
    assert tree["posterior"]["slope"].dims == ("chain", "draw")
    assert tree["posterior"]["level"].dims == ("chain", "draw", "groups")
    assert tree["posterior"]["line"].dims == tree["log_likelihood"]["y"].dims == ("chain", "draw", "groups", "rows")
    assert tree["sample_stats"]["log_weight"].dims == ("chain", "draw")
    expected = tree["log_likelihood"]["y"].sum(("groups", "rows")) + (
        -0.5 * (tree["posterior"]["slope"] ** 2 + (tree["posterior"]["level"] ** 2).sum("groups"))
        - 2 * np.log(2 * np.pi)
    )
    np.testing.assert_allclose(tree["sample_stats"]["lp"], expected, atol=1e-4)


def test_subsampled_plates_keep_their_rows_and_their_scale():
    data = torch.randn(20, 2)

    def model(data):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", 20, subsample_size=4, dim=-1) as index:
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=data[index])

    def guide(data):
        pyro.sample("mean", dist.Normal(torch.zeros(2), 0.1).to_event(1))

    tree = to_arviz(model, guide, data, 30, seed=3, block_elements=100)
    rows = tree["log_likelihood"]["rows"].values
    assert len(set(rows)) == 4
    np.testing.assert_allclose(tree["observed_data"]["x"], data[torch.tensor(rows)])
    prior = dist.Normal(0.0, 1.0).log_prob(torch.tensor(tree["posterior"]["mean"].values)).sum(-1)
    np.testing.assert_allclose(
        tree["sample_stats"]["lp"], 5 * tree["log_likelihood"]["x"].sum("rows") + prior.numpy(), rtol=1e-4
    )


def test_a_local_plate_that_is_subsampled_has_bare_weights_per_datum():
    model, guide, x = belief_net(rows=6)
    whole = to_arviz(pyro.poutine.scale(model, 1.0), guide, x, 4, seed=0)

    def scaled(program):
        def run(x):
            with pyro.poutine.scale(scale=torch.tensor(1.0)):
                return program(x)

        return run

    again = to_arviz(scaled(model), scaled(guide), x, 4, seed=0)
    np.testing.assert_allclose(whole["sample_stats"]["log_weight"], again["sample_stats"]["log_weight"])


@pytest.mark.parametrize("autoguide", [AutoNormal, AutoMultivariateNormal])
def test_autoguides_convert(autoguide):
    x, y = torch.linspace(-1, 1, 5), torch.randn(3, 5)
    guide = autoguide(regression)
    guide(x, y)
    tree = to_arviz(regression, guide, (x, y), 5, seed=0)
    assert set(tree["posterior"].data_vars) == {"slope", "level", "line"}
    assert np.isfinite(tree["sample_stats"]["log_weight"]).all()


def test_a_program_that_does_not_broadcast_is_run_draw_by_draw():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x), dim=-1):
            pyro.sample("z", dist.Normal(mean, 1.0).expand([2]).to_event(1))  # expand fails for a batch of means
            pyro.sample("x", dist.Normal(mean, 1.0).expand([len(x)]), obs=x)

    def guide(x):
        pyro.sample("mean", dist.Normal(0.1, 0.2))
        with pyro.plate("rows", len(x), dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    tree = to_arviz(model, guide, torch.randn(4), 6, seed=0)
    assert tree["posterior"]["mean"].shape == (1, 6) and tree["posterior"]["z"].shape == (1, 6, 4, 2)
    assert len(np.unique(tree["posterior"]["mean"])) == 6
    assert tree["posterior_predictive"]["x"].shape == (1, 6, 4)


@pytest.mark.parametrize("latent", LATENTS)
def test_every_latent_family(latent):
    settings = {"latent": latent, "layers": (3, 2), "classes": 4, "hidden": (8,)}
    tree = to_arviz(VAE(6, **settings), AmortizedGuide(6, **settings), (torch.rand(5, 6) < 0.5).float(), 4, seed=0)
    event = (3, 4) if latent == "categorical" else (3,)
    assert tree["posterior"]["z1"].shape == (1, 4, 5, *event)
    assert tree["posterior"]["z1"].dtype == (np.int8 if latent in ("bernoulli", "categorical") else np.float32)
    assert tree["sample_stats"]["log_weight"].shape == (1, 4, 5)


def test_counts_without_a_bound_are_int32():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Poisson(torch.full((len(x),), 300.0)))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("k", dist.Poisson(torch.full((len(x),), 300.0)))

    assert to_arviz(model, guide, torch.full((3,), 300.0), 4, seed=0)["posterior"]["k"].dtype == np.int32


def test_blocks_cut_draws_and_rows_and_give_a_file_like_the_tree_in_memory(tmp_path):
    model, guide, x = belief_net(rows=9)
    path = tmp_path / "posterior é.nc"
    tree = to_arviz(model, guide, x, 7, path=path, seed=0, block_elements=40, prior_draws=3, predictive_draws=5)
    assert tree["posterior"]["z"].shape == (1, 7, 9, 10)
    assert tree["posterior_predictive"]["x"].shape == (1, 5, 9, 12)
    assert tree["prior"]["z"].shape == (1, 3, 9, 10)
    stats = tree["sample_stats"]
    np.testing.assert_allclose(stats["log_weight"], stats["lp"] - stats["log_q"])
    assert 0.2 < float(tree["posterior"]["z"].mean()) < 0.8  # every block was written
    z = tree["posterior"]["z"].values
    assert (z.sum((0, 1, 3)) > 0).all() and (z.sum((0, 2, 3)) > 0).all()
    tree.close()
    once = to_arviz(model, guide, x, 7, seed=0)
    whole = to_arviz(model, guide, x, 7, path=tmp_path / "whole.nc", seed=0)
    for group in GROUPS:
        xarray.testing.assert_equal(once[group].to_dataset(), whole[group].to_dataset().load())
    whole.close()


def test_a_seed_leaves_the_callers_random_numbers_alone():
    model, guide, x = belief_net(rows=4)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    a = to_arviz(model, guide, x, 5, seed=7)
    assert torch.equal(torch.rand(3), expected)
    b = to_arviz(model, guide, x, 5, seed=7)
    np.testing.assert_array_equal(a["posterior"]["z"], b["posterior"]["z"])


BIG = """
import resource, sys, torch, pyro, pyro.distributions as dist
from pathscore.diagnostics.arviz import draw_tree as to_arviz
def model(x):
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(8), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
def guide(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(1))
x = torch.randn(10_000, 8)
to_arviz(model, guide, x, 2, prior_draws=0, predictive_draws=0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tree = to_arviz(model, guide, x, int(sys.argv[1]), path=sys.argv[2], prior_draws=0, predictive_draws=0,
                block_elements=2**20)
assert tree["posterior"]["z"].shape == (1, int(sys.argv[1]), 10_000, 8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def big_file(tmp_path, draws):
    """(MB of the file, MB by which memory grew while writing it), in a process of its own."""
    path = tmp_path / "big.nc"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BIG, str(draws), str(path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return path.stat().st_size / 2**20, float(done.stdout)


def test_memory_does_not_grow_with_the_file(tmp_path):
    size, grown = big_file(tmp_path, 120)
    assert size > 70 and grown < 0.6 * size, (size, grown)


@pytest.mark.proof
def test_ten_thousand_points_by_a_thousand_draws(tmp_path):
    size, grown = big_file(tmp_path, 1000)
    assert size > 500 and grown < 0.15 * size, (size, grown)


def test_the_file_opens_in_arviz_in_a_notebook(kernel, tmp_path):
    """What the documentation and the page tell people to type, in a real kernel: a table and a picture come out."""
    model, guide, x = belief_net(rows=4)
    to_arviz(model, guide, x, 30, path=tmp_path / "posterior.nc", seed=0).close()
    text = (Path(__file__).parents[2] / "docs" / "diagnostics.md").read_text(encoding="utf-8")
    told = next(block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "from_netcdf" in block)
    typed = [told.replace('"z1"', '"z"'), NOTEBOOK.format(path="posterior.nc", site="z")]
    cells = [code.replace("az.summary(", "table = az.summary(") + "\nprint(len(table), 'rows')" for code in typed]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    NotebookClient(notebook, timeout=300, kernel_name=kernel, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell in notebook.cells:
        assert any(o.get("text", "") == "10 rows\n" for o in cell.outputs)
        assert any("image/png" in o.get("data", {}) for o in cell.outputs)


def test_mcmc_results_convert(tmp_path):
    x, y = torch.linspace(-1, 1, 4), torch.randn(3, 4)
    run = MCMC(NUTS(regression), num_samples=12, warmup_steps=8, disable_progbar=True)
    run.run(x, y)
    tree = mcmc_to_arviz(run, attrs={"run_id": "m"})
    assert tree["posterior"]["level"].dims == ("chain", "draw", "groups")
    np.testing.assert_allclose(tree["posterior"]["slope"].values[0], run.get_samples()["slope"])
    assert tree["sample_stats"]["diverging"].shape == tree["sample_stats"]["lp"].shape == (1, 12)
    expected = tree["log_likelihood"]["y"].sum(("groups", "rows")) + (
        -0.5 * (tree["posterior"]["slope"] ** 2 + (tree["posterior"]["level"] ** 2).sum("groups"))
        - 2 * np.log(2 * np.pi)
    )
    np.testing.assert_allclose(tree["sample_stats"]["lp"], expected, atol=1e-4)
    file = mcmc_to_arviz(run, path=tmp_path / "m.nc")
    assert file["posterior_predictive"]["y"].shape == (1, 12, 3, 4)
    file.close()


def test_mcmc_with_summed_out_sites_says_what_is_missing():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(torch.tensor(0.0), 1.0))
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.5)), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(mean + k, 1.0), obs=x)

    run = MCMC(NUTS(model, max_plate_nesting=1), num_samples=5, warmup_steps=5, disable_progbar=True)
    run.run(torch.randn(4))
    tree = mcmc_to_arviz(run)
    assert tree.attrs["summed_out"] == "k"
    assert set(tree.children) == {"posterior", "observed_data"}


def test_what_cannot_be_converted_is_said_in_one_line():
    model, guide, x = belief_net(rows=4)
    with pytest.raises(UsageError, match="at least one draw"):
        to_arviz(model, guide, x, 0)
    with pytest.raises(UsageError, match=r"call mcmc\.run"):
        mcmc_to_arviz(MCMC(NUTS(regression), num_samples=1, warmup_steps=1, disable_progbar=True))
    with pytest.raises(UsageError, match=r"no pyro\.sample site"):
        to_arviz(lambda x: None, lambda x: None, x, 3)

    def broken(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Bernoulli(logits=torch.full((len(x), 10), torch.nan)).to_event(1))

    with pytest.raises(NumericsError) as error:
        to_arviz(model, broken, x, 3)
    assert "Bernoulli got an invalid logits" in str(error.value) and "\n" not in str(error.value)

    def sneaky(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(torch.full((len(x), 10), torch.nan), 1.0, validate_args=False).to_event(1))

    def continuous(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(10), 1.0).to_event(1))
            pyro.sample(
                "x", dist.Normal(z.sum(-1, keepdim=True).expand(x.shape), 1.0, validate_args=False).to_event(1), obs=x
            )

    with pyro.validation_enabled(False), pytest.raises(NumericsError, match="'z' has 120 NaN values in 120"):
        to_arviz(continuous, sneaky, x, 3)
