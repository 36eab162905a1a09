"""A run that came to nothing is not reported as a success, and one that did is."""

import json
from types import SimpleNamespace

import pytest
import torch

from models import LIKELIHOODS
from pathscore.command import cli
from pathscore.runs.verdict import doubts

SMALL = ["--layers", "2", "--hidden", "8", "--eval-samples", "5"]


def run(tmp_path, capsys, *words: str) -> tuple[dict, str, str]:
    assert cli.main(["train", *SMALL, *words, "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    return json.loads((tmp_path / "run" / "summary.json").read_text()), out, err


def test_a_run_that_flew_away_is_no_success(tmp_path, capsys):
    summary, out, err = run(tmp_path, capsys, "--lr", "1e6", "--epochs", "1")
    assert "this run is no success: the model is worse than independent values" in err
    assert summary["doubts"] and "independent values" in out


@pytest.mark.parametrize(
    ("first", "last", "warmup", "found"),
    [
        (-27.0, -30.0, 0.0, True),
        (-27.0, -27.1, 0.0, False),  # within the margin of 1 %
        (-27.0, -25.0, 0.0, False),
        (-27.0, -30.0, 5.0, False),  # the weight on the KL terms rose meanwhile
        (-27.0, float("inf"), 0.0, True),
    ],
)
def test_a_run_that_ended_below_its_start_is_no_success(first, last, warmup, found):
    job = SimpleNamespace(config=SimpleNamespace(kl_warmup=warmup))
    said = doubts(job, {"train_elbo": last, "floor": {}}, [{"train_elbo": first}, {"train_elbo": last}])
    assert bool(said) is found and all("lower --lr" in text for text in said)


def test_a_run_that_trained_is_one(tmp_path, capsys):
    summary, out, err = run(tmp_path, capsys, "--epochs", "8", "--lr", "0.01")
    assert summary["doubts"] == [] and "no success" not in err
    assert summary["test_elbo"] > summary["floor"]["independent values"] and "independent values  " in out


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_floor_is_the_likelihood_of_independent_values(name):
    torch.manual_seed(0)
    x = (torch.rand(5000, 3) < torch.tensor([0.1, 0.5, 0.9])).float()
    found = LIKELIHOODS[name].independent(x).log_prob(x).mean().item()
    p = torch.tensor([0.1, 0.5, 0.9])
    variance = (p * (1 - p)).mean()
    entropy = {
        "bernoulli": -(p * p.log() + (1 - p) * (1 - p).log()).sum(),
        "normal": 1.5 * (1 + (2 * torch.pi * variance).log()),
    }
    assert found == pytest.approx(-entropy[name].item(), abs=0.1)
