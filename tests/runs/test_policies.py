"""A policy is trained like any program: it resumes bit for bit, compiles, and every verb serves it without data."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from pathscore.command import cli
from pathscore.runs import checkpoint, job
from pathscore.runs.metrics import read_metrics

PROGRAMS = {
    "bandit": ["--tasks", "3", "--arms", "4"],
    "gridworld": ["--map", "room", "--horizon", "4", "--lr", "0.2", "--particles", "2"],
}
SHORT = ["--eval-samples", "100", "--quiet"]


def train(name: str, out: Path, *words: str) -> int:
    return cli.main(["train", "--model", name, *PROGRAMS[name], *SHORT, "--out", str(out), *words])


def state(run: Path) -> torch.Tensor:
    """The trained logits of a run."""
    modules = checkpoint.load(run).payload["svi"]["modules"].values()
    (found,) = (tensors["logits"] for tensors in modules if "logits" in tensors)
    return found


@pytest.fixture(scope="module", params=sorted(PROGRAMS))
def run(request, tmp_path_factory):
    """A program and a finished run of it; the table of gradients is left to the verb."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "finish", lambda *args: "")
        assert train(request.param, out, "--steps", "60") == 0
    return request.param, out


@pytest.fixture
def short(monkeypatch):
    """Runs end with their figures; the table of gradients and the pictures are those of `run`."""
    monkeypatch.setattr(job, "finish", lambda *args: "")
    monkeypatch.setattr(job, "save_pictures", lambda *args: [])


def test_it_learns_and_its_return_is_followed(run):
    name, out = run
    summary = json.loads((out / "summary.json").read_text())
    figures = [line["watched"]["expected return"] for line in read_metrics(out / "metrics.jsonl") if "watched" in line]
    assert len(figures) == 2 and figures[-1] == summary["measures"]["expected return"]  # after 50 steps and at the end
    assert figures[-1] > {"bandit": 4.5, "gridworld": 0.15}[name]  # random choices: about 4 and 0.01
    assert summary["exact"]["elbo"] <= summary["exact"]["log_evidence"]
    assert abs(summary["bound"] - summary["exact"]["elbo"]) < 5 * summary["bound_se"] + 1e-3
    for picture in ("policy", "watched", "training"):
        assert (out / f"{picture}.png").stat().st_size > 1000


@pytest.mark.usefixtures("short")
def test_it_resumes_bit_for_bit(run, tmp_path):
    name, out = run
    assert train(name, tmp_path / "parts", "--steps", "20") == 0
    assert cli.main(["train", "--resume", str(tmp_path / "parts"), "--steps", "60", "--quiet"]) == 0
    assert torch.equal(state(out), state(tmp_path / "parts"))


@pytest.mark.parametrize("run", ["gridworld", pytest.param("bandit", marks=pytest.mark.proof)], indirect=True)
def test_gradients_and_diagnose_serve_it(run, tmp_path, capsys):
    _, out = run
    found = tmp_path / "run"
    shutil.copytree(out, found)
    assert cli.main(["gradients", str(found), "--estimators", "score,rloo,grpo", "--replicates", "1000"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"grpo +biased", said) and "exact gradient (sum over all joint states)" in said
    quick = ["--draws", "20", "--replicates", "20", "--gap-points", "2", "--chain-points", "0"]
    assert cli.main(["diagnose", str(found), "--quiet", *quick]) == 0, capsys.readouterr().err
    assert "Traceback" not in (found / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("run", ["bandit"], indirect=True)
@pytest.mark.usefixtures("short")
def test_runs_of_it_are_compared_by_draws_of_their_guides(run, tmp_path, capsys):
    name, out = run
    shutil.copytree(out, tmp_path / "a")
    assert train(name, tmp_path / "b", "--steps", "3") == 0
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--quiet"]) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert found["measure"] == "bound of one draw" and found["points"] == 200
    assert [row["verdict"] for row in found["runs"]] == ["best", "worse"]
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert "200 draws of each guide" in page and "expected return" in page


@pytest.mark.parametrize("run", ["bandit"], indirect=True)
@pytest.mark.usefixtures("short")
def test_other_rewards_are_not_compared(run, tmp_path, capsys):
    name, out = run
    assert train(name, tmp_path / "other", "--steps", "3", "--temperature", "0.3") == 0
    assert cli.main(["compare", str(out), str(tmp_path / "other"), "--quiet"]) == 2
    assert "other options of it: compare runs of the same program" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(PROGRAMS))
@pytest.mark.proof
def test_it_compiles(name, tmp_path, capsys):
    """The whole step is one graph, and learns as the eager one does."""
    words = ["--estimator", "rloo", "--particles", "2", "--steps", "60"]
    assert train(name, tmp_path / "eager", *words) == 0
    assert train(name, tmp_path / "compiled", *words, "--compile", "on") == 0
    assert "not compiled" not in capsys.readouterr().err
    assert torch.allclose(state(tmp_path / "eager"), state(tmp_path / "compiled"), atol=1e-4)
