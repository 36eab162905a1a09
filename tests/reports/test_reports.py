"""The verbs `diagnose` and `compare` and the flag `--report` on run directories, finished, stopped and damaged."""

import json
import shutil
from functools import partial

import numpy as np
import pandas
import pyro
import pytest
import torch
import xarray
from diagnostics_cases import linear_gaussian

from pathscore.command import diagnose as command
from pathscore.command.cli import main
from pathscore.config.config import config_class
from pathscore.diagnostics import Effort, examine
from pathscore.diagnostics.examining import known
from pathscore.diagnostics.rules import RULES
from pathscore.errors import NumericsError, RunDirError, UsageError
from pathscore.programs.lookup import find
from pathscore.reports import compare, diagnose
from pathscore.reports.diagnosing import flags_of
from pathscore.reports.entries import paired
from pathscore.runs import checkpoint
from pathscore.runs.job import Done
from pathscore.runs.opening import open_run

QUICK = Effort(
    points=40, draws=40, replicates=80, gap_points=4, gap_steps=5, chain_points=0, check_draws=9, predictive_draws=5
)
SMALL = ["--latent", "bernoulli", "--layers", "4", "--hidden", "8", "--steps", "12", "--eval-samples", "5", "--quiet"]


def train(folder, *flags):
    words = ["train", *SMALL, "--out", str(folder), *flags]
    assert main(words) == 0, words
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three small runs: two seeds, and another estimator."""
    base = tmp_path_factory.mktemp("runs")
    pyro.clear_param_store()
    disarm = ("--estimator", "disarm", "--track-variance", "disarm")
    return [
        train(base / "a", *disarm),
        train(base / "b", *disarm, "--seed", "1"),
        train(base / "c", "--estimator", "rloo", "--particles", "2"),
    ]


@pytest.fixture
def run(made, tmp_path):
    """A copy of the first run, to write into."""
    return shutil.copytree(made[0], tmp_path / "run é 1")


def test_diagnose_writes_the_draws_the_numbers_the_pictures_and_the_page(run):
    before = {p.name for p in run.iterdir()}
    page = diagnose(run, effort=QUICK, strict=True)
    assert page == run / "report.html"
    assert {p.name for p in run.iterdir()} - before == {
        "posterior.nc",
        "diagnostics.json",
        "diagnostics",
        "report.html",
    }
    text = page.read_text()
    for words in (
        "What was run",
        "held-out ELBO",
        "How the gradient got through",
        "estimator disarm",
        "What to try next",
        "Samples and reconstructions",
        "from_netcdf",
        "coloured by label",
    ):
        assert words in text, words
    with xarray.open_datatree(run / "posterior.nc", engine="h5netcdf") as tree:
        assert tree["posterior"]["z1"].shape == (1, 40, 40, 4) and tree["posterior"]["z1"].dtype == np.int8
        assert tree["posterior_predictive"]["x"].dims == ("chain", "draw", "data", "pixel")
        assert tree.attrs["run_id"] == "run é 1" and tree.attrs["steps"] == 12
    found = json.loads((run / "diagnostics.json").read_text())["sections"]
    assert set(found) >= {"importance", "gaps", "calibration", "latent", "predictive", "samples"}
    exact = found["importance"]["numbers"]["exact"]
    assert exact["how"] == "enumeration" and exact["elbo"] <= exact["log_evidence"]
    assert found["importance"]["numbers"]["log_evidence"][0] == pytest.approx(exact["log_evidence"], abs=0.3)
    assert (run / "diagnostics" / "pava-x.png").read_bytes().startswith(b"\x89PNG")
    assert len(pyro.get_param_store()) == 0


def test_the_same_seed_gives_the_same_numbers(run):
    opened = open_run(run)
    x = opened.job.held_out[0][:20]
    with opened.job.svi.scope():
        a, b = (
            examine(opened.job.model, opened.job.guide, x, effort=QUICK, names=["importance", "calibration"])
            for _ in range(2)
        )
    assert [s.numbers for s in a] == [s.numbers for s in b]


def test_a_run_that_was_stopped_says_so(run):
    (run / "summary.json").unlink()
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "steps": 90}))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "train_el')
    text = diagnose(run, effort=QUICK, names=["importance"]).read_text()
    assert "Training stopped at step 12 of 90" in text and "has no summary.json" in text


def test_directories_that_hold_no_run_are_refused_in_one_line(run, tmp_path, capsys):
    with pytest.raises(RunDirError, match=r"not a run directory: config\.json"):
        diagnose(tmp_path)
    assert main(["diagnose", str(tmp_path / "nowhere")]) == 3
    (run / "checkpoint.pt").unlink()
    (run / "checkpoint.previous.pt").unlink(missing_ok=True)
    assert main(["diagnose", str(run)]) == 3
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2 and "holds no checkpoint.pt" in lines[1]


def test_weights_that_are_not_finite_are_named(run):
    payload = checkpoint.load(run).payload
    for name, value in payload["svi"]["modules"]["guide"].items():
        if value.is_floating_point() and name.endswith("bias"):
            value.fill_(torch.nan)
    checkpoint.save(run, payload)
    with pytest.raises(NumericsError, match="Bernoulli got an invalid logits"):
        diagnose(run, effort=QUICK)
    assert not (run / "posterior.nc").exists() and not list(run.glob("*.tmp"))
    assert main(["diagnose", str(run), "--quiet"]) == 4


def test_a_checkpoint_of_another_program_is_refused(run):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "layers": [5]}))
    with pytest.raises(RunDirError, match="does not fit the run's configuration"):
        open_run(run)


def test_the_verb_and_its_flags(run, capsys):
    flags = ["--only", "samples", "--points", "20", "--draws", "30", "--quiet"]
    assert main(["diagnose", str(run), *flags]) == 0
    out = capsys.readouterr().out.strip()
    assert out == str(run / "report.html")
    assert set(json.loads((run / "diagnostics.json").read_text())["sections"]) >= {"samples", "run"}
    assert main(["diagnose", "--help"]) == 0 and "calibration" in capsys.readouterr().out
    for words in (["--only", "importence"], ["--drws", "3"], ["--draws", "1"]):
        assert main(["diagnose", str(run), *words]) == 2, words
    assert "did you mean 'importance'" in capsys.readouterr().err
    assert main(["diagnose", "--quiet"]) == 2


def test_compare_pairs_runs_on_the_same_data(made, tmp_path, capsys):
    found = compare(made, points=60, samples=20, out=tmp_path / "c")
    text = found.path.read_text()
    for words in ("Paired differences", "estimator disarm", "estimator rloo", "Over seeds", "Gradient variance during"):
        assert words in text, words
    rows = {r["run"]: r for r in json.loads((tmp_path / "c" / "comparison.json").read_text())["runs"]}
    assert len(rows) == 3
    best = max(rows.values(), key=lambda r: r["log_likelihood"])
    for r in rows.values():
        assert r["difference"] == pytest.approx(r["log_likelihood"] - best["log_likelihood"], abs=1e-9)
        assert (r["difference_se"] > 0) == (r is not best)
    batch = open_run(made[0]).config.batch_size
    assert {r["evaluations_per_step"] / batch for r in rows.values()} == {2.0}  # DiSARM: two rows; RLOO: two particles
    assert (
        main(["compare", *map(str, made), "--samples", "5", "--points", "20", "--quiet", "--out", str(tmp_path)]) == 0
    )
    assert capsys.readouterr().out.strip() == str(tmp_path / "comparison.html")


def test_a_comparison_is_a_table_with_intervals(made, tmp_path):
    found = compare({"one": made[0], "two": Done(made[2], {})}, points=60, samples=20, out=tmp_path)
    table = found.to_dataframe()
    assert list(table.index) == ["one", "two"]
    (row,) = [row for _, row in table.iterrows() if row.verdict != "best"]
    assert row.low == pytest.approx(row.difference - 3 * row.difference_se) and row.high > row.low
    read = pandas.read_csv(tmp_path / "comparison.csv", index_col="label")
    assert read.difference.tolist() == pytest.approx(table.difference.tolist())
    latex = (tmp_path / "comparison.tex").read_text()
    assert "\\toprule" in latex and f"{row.low:+.3f} to {row.high:+.3f}" in latex
    assert "difference to the best" in str(found) and f"{row.low:+.3f} to {row.high:+.3f}" in str(found)
    page = found.path.read_text()
    assert f"{row.low:+.3f} … {row.high:+.3f}" in page and str(made[0]) in page


def test_reports_and_arrays_are_compared_in_pairs():
    model, guide, x = linear_gaussian(0, rows=60)
    good, again = (examine(model, guide, x, names=["importance"], effort=QUICK.with_(seed=s)) for s in (0, 1))
    found = compare({"good": good, "again": again})
    assert found.path is None and len(found.entries[0].log_likelihood) == 60
    assert set(found.to_dataframe().verdict) <= {"best", "not significant"}
    worse = compare({"good": good, "worse": good.pointwise["log_likelihood"] - 0.1})
    assert worse.to_dataframe().verdict.tolist() == ["best", "worse"] and "Training" not in worse.html()
    with pytest.raises(UsageError, match=r"different numbers of data points \(a: 60, b: 5\)"):
        compare({"a": good, "b": np.zeros(5)})
    with pytest.raises(UsageError, match="'b' is neither a run directory nor a report nor an array"):
        compare({"a": good, "b": np.zeros((5, 2))})


def test_runs_that_cannot_be_compared_are_refused(made, tmp_path, capsys):
    with pytest.raises(UsageError, match="at least two run directories"):
        compare(made[:1])
    other = train(tmp_path / "other", "--binarize", "threshold")
    with pytest.raises(UsageError, match="different held-out data"):
        compare([made[0], other])
    assert main(["compare", str(made[0])]) == 2
    assert main(["compare", "--help"]) == 0


def test_paired_differences_take_the_common_spread_out():
    # A difference of 0.1 nat in data that spread by 10 nats: lost in the error bars of each, plain in the pairs.
    rng = np.random.default_rng(0)
    base = rng.normal(0, 10, 400)
    found = paired(base + 0.1 + rng.normal(0, 0.2, 400), base)
    assert found.mean == pytest.approx(0.1, abs=0.04) and found.error == pytest.approx(0.01, rel=0.2)
    assert found.words == "better" and paired(base, base + 1).words == "worse"
    assert paired(base, base).words == "not significant"
    assert paired(base + rng.normal(0, 0.2, 400), base).words == "not significant"


def test_report_at_the_end_of_training(tmp_path, capsys, monkeypatch):
    quick = partial(command.DiagnoseRequest, only="importance", points=20, draws=20)
    monkeypatch.setattr(command, "DiagnoseRequest", quick)
    train(tmp_path / "r", "--report", "--steps", "5")
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "This run is no success" in page and "independent values" in page  # after five steps
    assert capsys.readouterr().out.strip().endswith(str(tmp_path / "r" / "report.html"))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_an_advice_names_only_flags_that_the_run_has(rule):
    vae, other = (flags_of(config_class(find(name).options)()) for name in ("vae", "gridworld"))
    assert known(rule.flags, vae) == rule.flags, "a flag of the advice does not exist"
    found = known(rule.flags, other)
    assert not {word for word in found.replace(";", " ").split() if word.startswith("--")} - other
    assert all(word in found for word in ("--epochs", "--elbo iwae", "posterior.nc") if word in rule.flags)


def test_the_interval_of_a_difference_leaves_zero_out_where_it_is_significant():
    for shift in (0.0, 0.2, 0.29, 0.31, 0.5, -0.29, -0.31):
        noise = np.tile([1.0, -1.0], 50) * 0.995  # standard error of the mean 0.1
        found = paired(shift + noise, np.zeros(100))
        low, high = found.interval
        assert (low > 0 or high < 0) == (found.words != "not significant"), shift
