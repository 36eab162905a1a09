"""The estimators of a run: `auto` where none is named, those of a run from before that rule, what others gain."""

import json
from dataclasses import replace

import pytest
import torch

from pathscore.command import cli
from pathscore.config import Config
from pathscore.elbos import ELBOS
from pathscore.elbos.plan import key_of
from pathscore.errors import UsageError
from pathscore.gradients.records import Row
from pathscore.reports.gradients import section
from pathscore.runs import checkpoint, job, rundir
from pathscore.runs.assembly import assemble, named_estimators, settle
from pathscore.runs.measuring import flag, gain

TINY = ["--hidden", "8", "--layers", "4", "--eval-samples", "5", "--quiet"]
OWN = {"vimco", "ovis"}  # what their score-function sites learn from is the objective itself


@pytest.fixture(autouse=True)
def without_afterwork(monkeypatch):
    monkeypatch.setattr(job, "save_pictures", lambda *args, **kwargs: [])


@pytest.mark.parametrize("elbo", [name for name, entry in ELBOS.items() if entry.credit])
@pytest.mark.parametrize("latent", ["normal", "bernoulli"])
def test_where_no_estimator_is_named_auto_chooses_unless_the_objective_has_its_own(elbo, latent):
    if ELBOS[elbo].path and latent == "bernoulli":
        return
    run = assemble(Config(elbo=elbo, latent=latent, layers=(4,), hidden=(8,), eval_samples=2))
    discrete = "score" if elbo in OWN else "enum"  # 16 joint values
    assert run.config.estimator == ("default" if elbo in OWN else "auto")
    assert run.svi.elbo.estimators[key_of("z1")].name == ("pathwise" if latent == "normal" else discrete)
    assert ("pathwise" if latent == "normal" else discrete) in run.explanation


def test_objectives_that_take_no_estimator_say_what_they_do():
    run = assemble(Config(elbo="enum", latent="bernoulli", layers=(4,), hidden=(8,), eval_samples=2))
    assert run.config.estimator == "default" and "summed out" in run.explanation


def test_sites_that_are_not_named_get_auto_and_default_stands_for_all_of_them():
    common = {"latent": "bernoulli", "layers": (20, 20), "hidden": (8,), "eval_samples": 2}
    run = assemble(Config(estimator="z2=rloo", **common))
    assert run.config.estimator == "z2=rloo,*=auto"
    assert [run.svi.elbo.estimators[name].name for name in ("z1", "z2")] == ["disarm", "rloo"]
    run = assemble(Config(estimator="z2=rloo,*=default", **common))
    assert [run.svi.elbo.estimators[name].name for name in ("z1", "z2")] == ["score", "rloo"]
    with pytest.raises(UsageError, match="--estimator z1=default: default stands for all sites"):
        named_estimators(Config(estimator="z1=default"))


def state(directory) -> dict:
    return checkpoint.load(directory).payload["svi"]["modules"]


@pytest.mark.parametrize("named", ["default", "z1=disarm"])
@pytest.mark.parametrize("missing", [False, True])
def test_a_run_from_before_the_rule_resumes_with_the_gradient_it_had(named, missing, tmp_path, monkeypatch):
    """Its config.json holds null, no key, or some of the sites: the others had Pyro's own gradient."""
    monkeypatch.setattr(job, "finish", lambda *args, **kwargs: "")
    whole, old = tmp_path / "whole", tmp_path / "old"
    words = ["train", *TINY, "--latent", "bernoulli", "--layers", "12,12", "--steps"]
    given = named if named == "default" else f"{named},*=default"
    assert cli.main([*words, "8", "--estimator", given, "--out", str(whole)]) == 0
    assert cli.main([*words, "4", "--estimator", given, "--out", str(old)]) == 0
    config = json.loads((old / "config.json").read_text())
    config["estimator"] = None if named == "default" else named
    if missing and named == "default":
        del config["estimator"]
    (old / "config.json").write_text(json.dumps(config))
    again = ["--estimator", named] if missing and named != "default" else []
    assert cli.main(["train", "--quiet", "--resume", str(old), "--steps", "8", *again]) == 0
    for part, tensors in state(whole).items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, state(old)[part][name]), (part, name)
    assert rundir.read_config(old).estimator == given


def test_a_resumed_run_does_not_change_its_estimator(tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main(["train", *TINY, "--latent", "bernoulli", "--steps", "3", "--out", str(run)]) == 0
    assert rundir.read_config(run).estimator == "auto"
    assert cli.main(["train", "--quiet", "--resume", str(run), "--estimator", "default"]) == 2
    assert "--estimator default contradicts the run, which has auto" in capsys.readouterr().err


def test_the_table_of_a_run_marks_its_own_row_and_says_what_another_gains(tmp_path, capsys):
    """A run with the score function at 12 Bernoulli units: another estimator has less than a tenth of its variance."""
    words = ["train", *TINY[:-1], "--latent", "bernoulli", "--layers", "12", "--steps", "30"]
    assert cli.main([*words, "--estimator", "default", "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "estimator default" in said and "score (this run)" in said
    (line,) = [line for line in said.splitlines() if "of the variance of score" in line]
    assert "--estimator " in line
    assert cli.main([*words, "--out", str(tmp_path / "b")]) == 0
    said = capsys.readouterr().out
    assert "estimator auto" in said and "disarm (this run)" in said and "of score" not in said
    assert "disarm (auto)" in said
    (table,) = section(tmp_path / "b").tables
    assert [line[0] for line in table.rows if "this run" in line[0]] == ["disarm (this run)"]


def row(name: str, variance: float, time: float = 1.0, error: float = 0.01, unbiased: bool = True) -> Row:
    """A row with this variance, relative standard error of the variance, and time."""
    values = dict.fromkeys(Row.__dataclass_fields__, 0.0)
    found = {"name": name, "unbiased": unbiased, "total_variance": variance, "milliseconds": time}
    return Row(**{**values, **found, "variance_se": error * variance, "relative_cost": variance * time})


OURS = row("score", 360.0)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([row("disarm", 1.0), row("rloo", 5.0)], "disarm has 1/360 of the variance of score, at 1 times its time"),
        ([row("disarm", 1.0, time=9.0), row("rloo", 3.0)], "rloo has 1/120 "),  # the least variance × time
        ([row("enum", 0.0)], "enum has no variance, at 1 times its time: --estimator enum"),
        ([row("y=disarm, z1+z2=stl", 200.0)], "1/1.8 of the variance of score, at 1 times its time: --estimator y=dis"),
        ([row("gumbel", 1.0, unbiased=False)], ""),
        ([row("disarm", 300.0, error=0.1)], ""),  # 1.8 standard errors
        ([row("disarm", 180.0, time=3.0)], ""),
        ([row("disarm", 400.0)], ""),
        ([], ""),
    ],
)
def test_what_another_estimator_gains_is_said_where_it_is_significant(others, said):
    found = gain([OURS, *others], "score")
    assert said in found and bool(said) == bool(found)
    assert gain([replace(OURS, total_variance=0.0), *others], "score") == ""
    assert gain(others, "score") == ""


def test_a_label_becomes_the_words_of_the_flag():
    assert flag("disarm") == "disarm" and flag("gumbel(temperature=0.3)") == "gumbel(temperature=0.3)"
    assert flag("y=disarm, z1+z2=pathwise") == "y=disarm,z1=pathwise,z2=pathwise"


def test_settling_is_done_once():
    from pathscore.command.tables import DIGITS

    once = settle(Config(estimator="z1=disarm", layers=(4,)), DIGITS)
    assert settle(once, DIGITS) == once
