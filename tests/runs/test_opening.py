"""A run directory is opened and used, and a program of your own is saved and loaded; every refusal is one line."""

import subprocess
import sys

import numpy as np
import pandas
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer.autoguide import AutoNormal

import pathscore
from guides import FactorisedGuide
from models import VAE
from models.entries import vae_networks
from pathscore.command import cli
from pathscore.errors import PathscoreError, RunDirError, UsageError
from pathscore.svi import SVI
from pathscore.trained import exporting
from pathscore.trained.trained import Trained


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A short run of the command line, two layers."""
    path = tmp_path_factory.mktemp("runs") / "run"
    words = ["--steps", "20", "--layers", "5,3", "--hidden", "16", "--eval-samples", "5", "--quiet"]
    assert cli.main(["train", *words, "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def run(directory):
    return pathscore.open_run(directory)


def test_it_shows_what_was_run(run, directory):
    assert "vae on digits" in repr(run) and run.config.layers == (5, 3)
    assert isinstance(run.metrics, pandas.DataFrame) and run.metrics.index.name == "step"
    assert run.metrics["valid_elbo"].iloc[-1] == pytest.approx(run.lines[-1]["valid_elbo"])
    assert run.model.decode(torch.zeros(2, 5)).shape == (2, 64) and run.labels.shape == (297,)


def test_it_is_used(run):
    x = run.x_test[:6]
    assert {k: tuple(v.shape) for k, v in run.encode(x).items()} == {
        f"z{i}.{part}": (6, size) for i, size in ((1, 5), (2, 3)) for part in ("mean", "scale")
    }
    assert run.reconstruct(x).shape == (6, 64) and set(np.unique(run.generate(4))) <= {0, 1}
    images = x.reshape(6, 8, 8).numpy().copy()
    images[:, 4:] = np.nan
    filled = run.impute(images, steps=8, chains=2)
    assert filled.shape == images.shape and np.array_equal(filled[:, :4], images[:, :4])
    assert run.log_likelihood(x, particles=5).shape == (6,)
    assert run.sample_posterior(x, 3)["posterior"]["z1"].shape == (1, 3, 6, 5)


def test_data_of_another_shape_or_kind_are_refused(run):
    grey = np.full((2, 64), 0.5)
    for bad, words in (
        (run.x_test[0], r"pass x\[None\]"),
        (run.x_test[:, :5], r"give x \(N, 64\)"),
        (grey, r"pass run\.binarized\(x\)"),
        (np.full((2, 64), np.nan), "row 0, column 0"),
        ((run.x_test, run.labels), "takes 1 arrays, and got 2"),
    ):
        with pytest.raises(PathscoreError, match=words) as caught:
            run.encode(bad)
        assert "\n" not in str(caught.value)
    assert set(np.unique(run.binarized(grey))) <= {0, 1} and run.encode(run.binarized(grey))["z1.mean"].shape == (2, 5)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunDirError, match="is not a run directory"):
        pathscore.open_run(tmp_path)


ALONE = """
import sys
for name in ("pathscore", "models", "guides", "pyro"):
    sys.modules[name] = None  # an import of it fails
import numpy as np, torch
z, x = (torch.as_tensor(np.load(sys.argv[1])[name]) for name in ("z", "x"))
decoded = torch.export.load(sys.argv[2] + "/decoder.pt2").module()(z)
encoded = torch.export.load(sys.argv[2] + "/encoder.pt2").module()(x)
np.savez(sys.argv[3], decoded=decoded.detach(), **{k: v.detach() for k, v in encoded.items()})
"""


def test_exported_networks_load_without_pathscore_and_agree(directory, run, tmp_path, capsys):
    """Encoder and decoder in another process, which cannot import the project: equal to 1e-6."""
    assert cli.main(["export", str(directory)]) == 0
    assert capsys.readouterr().out.split() == [str(directory / f"{name}.pt2") for name in ("encoder", "decoder")]
    x, z = run.x_test[:7], torch.randn(7, 5)
    np.savez(tmp_path / "in.npz", z=z, x=x.numpy())
    files = [str(place) for place in (tmp_path / "in.npz", directory, tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", ALONE, *files], check=True, timeout=300, cwd=tmp_path)
    found = np.load(tmp_path / "out.npz")
    with torch.no_grad():
        assert np.abs(found["decoded"] - run.model.decode(z).numpy()).max() < 1e-6
    for part in ("mean", "scale"):
        assert np.abs(found[f"z1.{part}"] - run.encode(x)[f"z1.{part}"].numpy()).max() < 1e-6


@pytest.mark.parametrize("latent", ["laplace", "lognormal", "bernoulli", "categorical"])
def test_networks_of_every_family_are_exported(latent, tmp_path):
    sizes = {"data_size": 6, "latent": latent, "layers": (3, 2), "hidden": (4,), "classes": 3}
    model, guide = VAE(**sizes), FactorisedGuide(**sizes)
    encoder, decoder = exporting.export(vae_networks.networks(model, guide), tmp_path)
    x = torch.rand(5, 6).round()
    codes = torch.export.load(encoder).module()(x)
    expected = Trained(SVI(model, guide, publish=False)).encode(x)
    assert {name.split(".")[0] for name in codes} == {"z1", "z2"}
    assert (
        all((codes[name] - expected[name]).abs().max() < 1e-6 for name in expected) and codes.keys() == expected.keys()
    )
    z = guide.encode(x)["z1"].sample()
    assert (torch.export.load(decoder).module()(z) - model.decode(z)).abs().max() < 1e-6


def test_the_verbs_write_files(directory, tmp_path, capsys):
    new, codes = tmp_path / "new.npz", tmp_path / "codes.csv"
    assert cli.main(["generate", str(directory), "--count", "3", "--out", str(new)]) == 0
    assert np.load(new)["x"].shape == (3, 64)
    assert cli.main(["encode", str(directory), str(new), "--out", str(codes), "--draws", "5"]) == 0
    assert pandas.read_csv(codes).shape == (3, 2 * (5 + 3)) and "z1.mean.0" in pandas.read_csv(codes)
    assert capsys.readouterr().out.split() == [str(new), str(codes)]
    assert cli.main(["encode", str(directory), str(new), "--out", str(tmp_path / "c.txt")]) == 2
    assert ".npz, .parquet, .csv" in capsys.readouterr().err
    assert cli.main(["encode", str(directory)]) == 2
    assert cli.main(["generate"]) == cli.main(["export"]) == 0  # the help


def test_a_table_as_parquet(directory, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is the extra pathscore[parquet]")
    out = tmp_path / "new.parquet"
    assert cli.main(["generate", str(directory), "--count", "3", "--out", str(out)]) == 0
    assert pandas.read_parquet(out).shape == (3, 64)


def model(x):
    loc = pyro.param("loc", torch.zeros(2))
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("x", dist.Normal(loc + z, 1.0).to_event(1), obs=x)


def fitted(guide) -> tuple[SVI, torch.Tensor]:
    x = torch.randn(20, 2) + 3
    svi = SVI(model, guide, "adam(lr=0.1)")
    for _ in range(30):
        svi.step(x)
    return svi, x


def test_a_program_is_saved_loaded_and_trained_on(tmp_path):
    svi, x = fitted(AutoNormal(model))
    pathscore.save(svi, tmp_path / "mine.pt", x)
    pyro.clear_param_store()
    loaded = pathscore.load(tmp_path / "mine.pt", model, AutoNormal(model))
    assert {n: p.tolist() for n, p in loaded.svi.parameters().items()} == {
        n: p.tolist() for n, p in svi.parameters().items()
    }
    assert loaded.encode(x, draws=50)["z.mean"].shape == () and len(pyro.get_param_store()) == 0
    again = SVI(model, AutoNormal(model), "adam(lr=0.1)", publish=False)
    pathscore.load(tmp_path / "mine.pt", again)
    torch.manual_seed(1)
    expected = svi.step(x)
    torch.manual_seed(1)
    assert again.step(x) == expected and again.steps == 31


def test_what_cannot_be_loaded_is_refused_in_one_line(tmp_path, directory):
    svi, _ = fitted(AutoNormal(model))
    path = pathscore.save(svi, tmp_path / "mine.pt")

    def other(x):
        pyro.sample("z", dist.Normal(pyro.param("where", torch.zeros(())), 1.0))

    with pytest.raises(UsageError, match=r"give rows of data, load\(…, x=x\)"):
        pathscore.load(path, model, AutoNormal(model))
    with pytest.raises(UsageError, match="does not fit this program"):
        pathscore.load(path, model, other, x=torch.zeros(2, 2))
    with pytest.raises(UsageError, match="give model and guide"):
        pathscore.load(path, model)
    with pytest.raises(RunDirError, match="no such file"):
        pathscore.load(tmp_path / "none.pt", model, other)
    with pytest.raises(RunDirError, match=r"open its directory with pathscore\.open_run"):
        pathscore.load(directory / "checkpoint.pt", model, other)
    with pytest.raises(UsageError, match="taken no step"):
        pathscore.save(SVI(model, other), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunDirError, match="damaged"):
        pathscore.load(path, model, other)
