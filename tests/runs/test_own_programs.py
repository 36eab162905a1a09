"""A program of one's own enters by the same door as the VAE: it trains, resumes, is measured and examined."""

import json
from pathlib import Path

import numpy as np
import own_programs
import pyro
import pytest
import torch

import pathscore
from pathscore.command import cli
from pathscore.errors import UsageError
from pathscore.programs.lookup import find, place_of
from pathscore.runs import checkpoint
from pathscore.runs.opening import open_run

FILE = Path(own_programs.__file__)
NAMES = ("BUMPS", "LINE", "COUNTS", "STEPS", "COIN")
SHORT = ["--steps", "30", "--eval-samples", "20", "--quiet"]


def words(name: str, folder: Path) -> list[str]:
    """The program and its data on the command line."""
    if name == "COIN":
        return ["--model", f"{FILE}:{name}"]
    np.savez(folder / "own.npz", **own_programs.arrays(name))
    return ["--model", f"{FILE}:{name}", "--data", str(folder / "own.npz")]


def state(run: Path) -> dict[str, torch.Tensor]:
    """The trained tensors of a run."""
    held = checkpoint.load(run).payload["svi"]
    modules = {f"{kind}.{n}": t for kind, module in held["modules"].items() for n, t in module.items()}
    return {**modules, **held["params"]}


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_evaluates_and_resumes_bit_for_bit(name, tmp_path, capsys):
    run = ["train", *words(name, tmp_path), *SHORT]
    assert cli.main([*run, "--out", str(tmp_path / "whole")]) == 0, capsys.readouterr().err
    assert cli.main([*run, "--steps", "11", "--out", str(tmp_path / "parts")]) == 0
    assert cli.main(["train", "--resume", str(tmp_path / "parts"), "--steps", "30", "--quiet"]) == 0
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert whole and whole.keys() == parts.keys()
    assert all(torch.equal(whole[n], parts[n]) for n in whole)
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["steps"] == 30 and summary["parameters"] > 0
    bound = summary.get("test_elbo", summary.get("bound"))
    assert bound is not None and bound > -1e4
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize("name", NAMES)
def test_gradients_and_diagnose_serve_it(name, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert cli.main(["train", *words(name, tmp_path), *SHORT, "--out", run]) == 0
    assert cli.main(["gradients", run, "--estimators", "score", "--replicates", "50"]) == 0, capsys.readouterr().err
    assert "score" in capsys.readouterr().out
    quick = ["--points", "20", "--draws", "20", "--replicates", "20", "--gap-points", "2", "--chain-points", "0"]
    assert cli.main(["diagnose", run, "--quiet", *quick]) == 0, capsys.readouterr().err
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Traceback" not in page and name in page
    opened = open_run(run)
    codes = opened.encode(tuple(tensor[:4] for tensor in opened.example), to="torch", draws=3)
    assert codes and all(value.isfinite().all() for value in codes.values())
    with pytest.raises(UsageError, match="names no networks"):
        opened.export(tmp_path)


def test_its_options_defaults_measures_pictures_and_reference_are_used(tmp_path, capsys):
    run = ["train", *words("LINE", tmp_path), "--eval-samples", "20", "--lr", "0.05"]
    assert cli.main([*run, "--shape-of-noise", "laplace", "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "LINE with laplace; objective trace" in out and "mean squared error" in out and "exact rows" in out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["steps"], config["batch_size"], config["shape_of_noise"]) == (150, 25, "laplace")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["measures"]["mean squared error"] < 1.0  # a line of zeros misses by 5.6
    assert (tmp_path / "run" / "line.png").stat().st_size > 1000
    assert cli.main([*run, "--shape-of-noise", "laplce"]) == 2
    assert "unknown shape_of_noise 'laplce': did you mean 'laplace'?" in capsys.readouterr().err


def test_help_shows_its_options(capsys):
    assert cli.main(["train", "--help", "--model", f"{FILE}:LINE"]) == 0
    out = capsys.readouterr().out
    assert "--prior-scale FLOAT" in out and "A straight line (--model LINE)" in out and "--latent" not in out


def test_runs_of_it_are_compared(tmp_path, capsys):
    for seed in ("0", "1"):
        assert cli.main(["train", *words("LINE", tmp_path), *SHORT, "--seed", seed, "--out", f"{tmp_path}/{seed}"]) == 0
    assert cli.main(["compare", f"{tmp_path}/0", f"{tmp_path}/1", "--quiet"]) == 0, capsys.readouterr().err
    assert "log predictive density" in (tmp_path / "comparison.html").read_text(encoding="utf-8")


def test_in_python_it_is_one_import_and_one_call(tmp_path):
    np.savez(tmp_path / "own.npz", **own_programs.arrays("LINE"))
    data = {"data": str(tmp_path / "own.npz"), "eval_samples": 20, "lr": 0.05, "quiet": True}
    done = pathscore.train(own_programs.LINE, out=tmp_path / "run", prior_scale=2.0, **data)
    assert done.summary["prior_scale"] == 2.0 and done.summary["bound"] < 0
    again = pathscore.train(own_programs.LINE, resume=tmp_path / "run", steps=160, quiet=True)
    assert again.summary["steps"] == 160
    with pytest.raises(UsageError, match="did you mean 'prior_scale'"):
        pathscore.train(own_programs.LINE, prior_scal=2.0)


def test_a_run_is_opened_from_any_directory_and_the_held_out_weights_are_the_trained_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("own.npz", **own_programs.arrays("BUMPS"))
    run = ["train", "--model", f"{FILE}:BUMPS", "--data", "own.npz", *SHORT, "--out", "run"]
    assert cli.main(run) == 0
    monkeypatch.chdir("/")
    opened = open_run(tmp_path / "run")
    live = dict(opened.job.svi.modules()["model"].named_parameters())
    saved = checkpoint.load(tmp_path / "run").payload["svi"]["modules"]["model"]
    assert all(torch.equal(live[n].detach(), saved[n]) for n in live)


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        ("LINE", "BUMPS", "--model {file}:LINE takes rows and labels, and {data} holds rows: add an array y"),
        ("COUNTS", "BUMPS", "takes counts, and {data} holds rows: give an array x of whole numbers"),
        ("STEPS", "BUMPS", "takes sequences, and {data} holds rows: give an array x (N, T, X)"),
        ("COIN", "BUMPS", "--model {file}:COIN needs no data: remove --data"),
        ("BUMPS", "COUNTS", "x holds integers from 0 to "),
    ],
)
def test_data_that_it_does_not_take_are_refused_in_words(model, name, message, tmp_path, capsys):
    np.savez(tmp_path / "own.npz", **own_programs.arrays(name))
    run = ["train", "--model", f"{FILE}:{model}", "--data", str(tmp_path / "own.npz"), *SHORT]
    assert cli.main([*run, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message.format(file=FILE, data=tmp_path / "own.npz") in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_labels_of_a_named_set_reach_a_program(tmp_path, capsys):
    run = ["train", "--model", f"{FILE}:LINE", "--dataset", "digits", *SHORT, "--out", str(tmp_path / "run")]
    assert cli.main(run) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("vea", "unknown model 'vea': did you mean 'vae'?"),
        ("nowhere.py:X", "nowhere.py: there is no such file"),
        (f"{FILE}:LINES", f"no program 'LINES' in {FILE}: it holds BUMPS, LINE, COUNTS, STEPS, COIN"),
        (f"{FILE}", "name the program: it holds BUMPS"),
        ("{tmp}/broken.py:X", "cannot be imported: ZeroDivisionError: division by zero"),
        ("{tmp}/empty.py", "assign a pathscore.Program to a name in it"),
        ("{tmp}/taken.py:X", "every run has an option 'seed' already: give yours another name"),
    ],
)
def test_a_program_that_is_not_there_is_refused_in_one_line(word, message, tmp_path, capsys):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "taken.py").write_text(
        "import dataclasses\nfrom pathscore import Program, option\n"
        "@dataclasses.dataclass(frozen=True)\nclass O:\n    seed: int = option(0, 'x')\n"
        "X = Program(lambda data, options: (None, None), options=O)\n"
    )
    assert cli.main(["train", "--model", word.format(tmp=tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_objective_that_is_wrong_for_its_sites_is_refused_with_the_legal_list(tmp_path, capsys):
    run = ["train", *words("BUMPS", tmp_path), *SHORT, "--elbo", "dreg", "--out", str(tmp_path / "run")]
    assert cli.main(run) == 2
    error = capsys.readouterr().err
    assert "it reparameterises twice, and a discrete site has no path" in error and "legal here: trace" in error


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("UNSCALED", "is not scaled to the 54 data points of the training set: write pyro.plate('data', 54, subsampl"),
        ("NOT_DECLARED", "site 'w' is in no plate over the data points: if all data points share it, declare Program("),
        ("SCALED", ""),
    ],
)
def test_a_plate_that_does_not_fit_the_declaration_is_refused_before_the_first_step(name, message, tmp_path, capsys):
    np.savez(tmp_path / "own.npz", **own_programs.arrays("LINE"))
    model = f"{FILE.with_name('shared_weights.py')}:{name}"
    run = ["train", "--model", model, "--data", str(tmp_path / "own.npz"), "--out", str(tmp_path / "run"), *SHORT]
    assert cli.main([*run, "--batch-size", "20"]) == (2 if message else 0)
    error = capsys.readouterr().err
    assert message in error and (not message or error.count("\n") == 1)
    assert (tmp_path / "run").exists() == (not message)
    if name == "UNSCALED":
        assert cli.main([*run, "--batch-size", "54"]) == 0, capsys.readouterr().err


def test_flags_of_another_program_are_named(tmp_path, capsys):
    assert cli.main(["train", *words("BUMPS", tmp_path), "--latent", "normal"]) == 2
    assert "--latent is an option of --model vae: leave it out" in capsys.readouterr().err


def test_an_entry_knows_its_place_and_one_without_a_place_is_refused():
    assert place_of(find("vae")) == "vae"
    assert find(place_of(own_programs.LINE)) is own_programs.LINE
    with pytest.raises(UsageError, match="assign it to a name at the top level of the file"):
        pathscore.train(pathscore.Program(own_programs.make_coin, takes=()))
