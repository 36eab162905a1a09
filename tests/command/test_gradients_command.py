"""The verb `gradients`, the table that ends every run, and --track-variance."""

import json

import pytest
import torch

from pathscore.command.cli import main
from pathscore.gradients.lab import read_estimators
from pathscore.runs.metrics import read_metrics

RUN = "train --steps 30 --hidden 16 --eval-samples 2 --quiet"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A short run on digits with two Bernoulli layers, an estimator a layer, and two more followed."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    words = f"{RUN} --latent bernoulli --layers 6,4 --estimator z1=disarm,z2=rloo --track-variance score,rebar"
    assert main([*words.split(), "--out", str(path)]) == 0
    return path


def test_a_toy(tmp_path, capsys):
    files = tmp_path / "table.json", tmp_path / "picture.png"
    words = f"gradients --size 3 --estimators score,rloo --replicates 500 --json {files[0]} --picture {files[1]}"
    assert main(words.split()) == 0
    said = capsys.readouterr().out
    assert "ELBO of 3 bernoulli variables" in said and "exact gradient" in said and "rloo" in said
    assert [row["name"] for row in json.loads(files[0].read_text())["estimators"]] == ["score", "rloo"]
    assert files[1].read_bytes().startswith(b"\x89PNG")


def test_the_toy_of_the_papers(capsys):
    words = "gradients --cost square --target 0.45 --estimators disarm --replicates 200"
    assert main(words.split()) == 0
    assert "E[(b − 0.45)²] of 1 Bernoulli bits" in capsys.readouterr().out


def test_a_run_ends_with_its_table(run_dir):
    saved = json.loads((run_dir / "gradients.json").read_text())
    names = [row["name"] for row in saved["estimators"]]
    assert names[0] == "z1=disarm, z2=rloo" and {"score", "disarm", "rebar"} < set(names) and "pathwise" not in names
    assert set(saved["estimators"][0]["variance_by_parameter"]) == {"z1.logits", "z2.logits"}
    assert (run_dir / "gradients.png").read_bytes().startswith(b"\x89PNG")


def test_path_and_score_stand_side_by_side(tmp_path, capsys):
    assert main([*RUN.replace(" --quiet", "").split(), "--layers", "3", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "how the gradient got through the sampling step" in said
    rows = {row["name"]: row for row in json.loads((tmp_path / "run" / "gradients.json").read_text())["estimators"]}
    assert rows["score"]["total_variance"] > 10 * rows["pathwise"]["total_variance"] > 0


def test_variances_are_followed_along_the_run(run_dir, tmp_path):
    lines = [line for line in read_metrics(run_dir / "metrics.jsonl") if "gradient_variance" in line]
    assert lines and all(set(line["gradient_variance"]) == {"score", "rebar"} for line in lines)
    assert all(v["score"] > v["rebar"] > 0 for v in (line["gradient_variance"] for line in lines))


def test_following_changes_no_bit_of_the_run(run_dir, tmp_path):
    words = f"{RUN} --latent bernoulli --layers 6,4 --estimator z1=disarm,z2=rloo"
    assert main([*words.split(), "--out", str(tmp_path / "plain")]) == 0
    plain, followed = (torch.load(p / "checkpoint.pt", weights_only=True) for p in (tmp_path / "plain", run_dir))
    for kind in ("model", "guide"):
        a, b = plain["svi"]["modules"][kind], followed["svi"]["modules"][kind]
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_is_measured_again(run_dir, capsys):
    words = ["gradients", str(run_dir), "--estimators", "z1=disarm,z2=rloo; z1=rebar,z2=score", "--replicates", "100"]
    assert main(words) == 0
    saved = json.loads((run_dir / "gradients.json").read_text())
    assert [row["name"] for row in saved["estimators"]] == ["z1=disarm,z2=rloo", "z1=rebar,z2=score"]
    # Ten bits are few enough to sum out.
    assert "exact gradient (sum over all joint states)" in capsys.readouterr().out
    assert main([*words[:2], "--of", "weights", "--estimators", "disarm", "--replicates", "5"]) == 0
    assert "the guide's weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, code, said",
    [
        ("--estimators disrm", 2, "unknown estimator 'disrm': did you mean 'disarm'?"),
        ("--latent bernouli", 2, "unknown latent 'bernouli': did you mean 'bernoulli'?"),
        ("--latent normal --estimators disarm", 2, "legal here:"),
        ("--replicates 1", 2, "--replicates must lie between 2 and"),
        ("--replicats 5", 2, "did you mean '--replicates'?"),
        ("--replicates", 2, "--replicates takes a whole number: give a value"),
        ("--size 3 extra", 2, "unexpected argument 'extra'"),
        ("--cost cube", 2, "unknown cost 'cube'"),
        ("--latent normal --cost square", 2, "use --latent bernoulli"),
        ("--elbo meanfield --estimators score", 2, "--estimator"),
        ("nowhere", 3, "nowhere is not a run directory"),
        ("--estimators score --replicates 9 --json nowhere/x.json", 3, "cannot write nowhere/x.json"),
    ],
)
def test_refusals_are_one_line(words, code, said, capsys):
    assert main(["gradients", *words.split()]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_lists_of_estimators():
    assert read_estimators(None) is None
    assert read_estimators("score, rloo") == ["score", "rloo"]
    assert read_estimators("z1=disarm,z2=rloo") == ["z1=disarm,z2=rloo"]
    assert read_estimators("gumbel(temperature=0.3, minimum=0.1),score") == [
        "gumbel(temperature=0.3, minimum=0.1)",
        "score",
    ]
    assert read_estimators("score; z1=disarm,z2=rloo") == ["score", "z1=disarm,z2=rloo"]
