"""The tables, the names that the command line offers, and the legality matrix against what runs really do."""

import json

import pytest

import guides
import models
from models.bandit import REWARDS
from models.gridworld import MAPS
from pathscore.command import cli
from pathscore.command import tables as matrix
from pathscore.compiling.compiled_elbo import WHEN
from pathscore.config import options_of
from pathscore.config.choices import CHOICES
from pathscore.data import BINARIZE, DATASETS, load_dataset
from pathscore.elbos import ELBOS
from pathscore.elbos.site import KLS
from pathscore.elbos.vimco import FILLS
from pathscore.estimators import ESTIMATORS
from pathscore.programs.entry import HOLDS, Program
from pathscore.runs import job
from pathscore.svi.optimiser import OPTIMIZERS
from pathscore.svi.schedules import SCHEDULES

TABLES = {
    "elbo": ELBOS,
    "kl": KLS,
    "fill": FILLS,
    "estimator": ESTIMATORS,
    "dataset": DATASETS,
    "binarize": BINARIZE,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "dtype": ("float32", "float64"),
    "compile": WHEN,
    "matmul_precision": ("highest", "high", "medium"),
}

CELLS = [(elbo, latent, x) for elbo in ELBOS for latent in models.LATENTS for x in models.LIKELIHOODS]
SHORT = ["--steps", "3", "--eval-samples", "4", "--hidden", "8", "--quiet"]


VAE = {
    "latent": models.LATENTS,
    "likelihood": models.LIKELIHOODS,
    "trunk": models.TRUNKS,
    "activation": models.ACTIVATIONS,
    "prior": models.PRIORS,
    "guide": guides.GUIDES,
}


def test_the_command_line_offers_exactly_what_the_tables_hold():
    assert {kind: tuple(table) for kind, table in TABLES.items()} == CHOICES
    options = options_of(models.MODELS["vae"].load().options)
    assert {name: tuple(table) for name, table in VAE.items()} == {n: o.words for n, o in options.items() if o.words}


@pytest.mark.parametrize(("model", "option", "table"), [("bandit", "rewards", REWARDS), ("gridworld", "map", MAPS)])
def test_the_choices_of_a_program_are_those_of_its_table(model, option, table):
    assert tuple(table) == options_of(models.MODELS[model].load().options)[option].words


def test_what_a_data_set_is_said_to_hold_is_what_it_holds():
    for name, source in DATASETS.items():
        if source.offline:
            assert load_dataset(name).holds == source.holds


def test_every_entry_of_the_models_is_a_program_with_its_own_options():
    for listed in models.MODELS.values():
        program = listed.load()
        assert isinstance(program, Program) and listed.doc and set(program.takes) <= set(HOLDS)


@pytest.fixture(autouse=True)
def without_afterwork(monkeypatch):
    """Pictures and the table of gradients are alike for all cells, and take longer than three steps."""
    monkeypatch.setattr(job, "save_pictures", lambda *args, **kwargs: [])
    monkeypatch.setattr(job, "finish", lambda *args, **kwargs: "")


def train(*words: str) -> int:
    return cli.main(["train", *SHORT, *words])


@pytest.mark.parametrize(("elbo", "latent", "likelihood"), CELLS)
def test_each_cell_trains_three_steps_or_is_refused_as_the_matrix_says(elbo, latent, likelihood, tmp_path, capsys):
    out = tmp_path / "run"
    code = train("--elbo", elbo, "--latent", latent, "--likelihood", likelihood, "--out", str(out))
    reason = matrix.objectives()[elbo][latent]
    assert code == (2 if reason else 0), capsys.readouterr().err
    if reason:
        error = capsys.readouterr().err
        assert error.startswith(f"pathscore: --elbo {elbo} with --latent {latent}: {reason} (legal here: trace")
        assert not out.exists()
    else:
        assert json.loads((out / "summary.json").read_text())["steps"] == 3


@pytest.mark.parametrize(("latent", "claim"), [("normal", None), ("bernoulli", "planted")])
def test_a_cell_of_the_matrix_that_says_the_wrong_thing_is_caught(latent, claim, tmp_path, capsys, monkeypatch):
    wrong = matrix.objectives()
    monkeypatch.setattr(matrix, "objectives", lambda: {**wrong, "enum": {**wrong["enum"], latent: claim}})
    with pytest.raises(AssertionError):
        test_each_cell_trains_three_steps_or_is_refused_as_the_matrix_says(
            "enum", latent, "bernoulli", tmp_path, capsys
        )


@pytest.mark.parametrize("latent", models.LATENTS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_each_estimator_trains_three_steps_or_is_refused_as_the_matrix_says(estimator, latent, tmp_path, capsys):
    out = tmp_path / "run"
    code = train("--estimator", estimator, "--latent", latent, "--layers", "3", "--classes", "3", "--out", str(out))
    reason = matrix.estimators()[estimator][latent]
    error = capsys.readouterr().err
    assert code == (2 if reason else 0), error
    assert not reason or (reason in error and not out.exists())


@pytest.mark.parametrize(
    "words",
    [
        ["--trunk", "conv"],
        ["--trunk", "linear", "--latent", "bernoulli", "--layers", "5,4"],
        ["--guide", "factorised", "--layers", "5,4", "--elbo", "meanfield"],
        ["--elbo", "rws", "--batch-size", "1", "--latent", "bernoulli"],
        ["--elbo", "tail-adaptive", "--batch-size", "1"],
        ["--prior", "learned", "--dtype", "float64", "--optimizer", "sgd", "--momentum", "0.9", "--clip", "1"],
        ["--kl-weight", "0.5", "--kl-warmup", "1", "--schedule", "cosine", "--warmup", "2", "--particles", "3"],
        ["--binarize", "dynamic", "--batch-size", "5000"],
        ["--binarize", "threshold", "--likelihood", "normal", "--activation", "leaky-relu"],
    ],
)
def test_other_choices_train_too(words, tmp_path, capsys):
    assert train(*words, "--out", str(tmp_path / "run")) == 0, capsys.readouterr().err


@pytest.mark.parametrize("dataset", [name for name, source in DATASETS.items() if not source.offline])
def test_a_set_that_is_not_there_is_refused_with_what_works_offline(dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "pathscore.runs.assembly.load_dataset", lambda name, folder: load_dataset(name, folder, download=False)
    )
    assert train("--dataset", dataset, "--data-dir", str(tmp_path), "--out", str(tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error and "--dataset digits" in error


def test_mnist_trains_from_a_folder(mnist_dir, tmp_path, capsys):
    code = train("--dataset", "mnist", "--data-dir", str(mnist_dir), "--out", str(tmp_path / "run"))
    assert code == 0, capsys.readouterr().err


def test_the_printed_matrix_is_the_tested_one(capsys):
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    for names in (ELBOS, ESTIMATORS, models.LATENTS, models.LIKELIHOODS, guides.GUIDES, DATASETS):
        assert all(name in printed for name in names)
    for reason in {reason for row in matrix.objectives().values() for reason in row.values() if reason}:
        assert reason in printed
    assert cli.main(["list", "--markdwn"]) == 2
    assert "did you mean '--markdown'?" in capsys.readouterr().err
