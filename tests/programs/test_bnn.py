"""The Bayesian neural network: its sites, its predictions, and the run that it makes."""

import json

import pytest
import torch
from pyro import poutine
from torch.nn import functional as F

from guides import WeightGuide
from models.bnn import BayesianNetwork, predictive
from models.entries.bnn import scores
from pathscore.command import cli

SHAPES = {"net.0.weight": (4, 3), "net.0.bias": (4,), "net.2.weight": (2, 4), "net.2.bias": (2,)}


def pair():
    torch.manual_seed(0)
    return BayesianNetwork(20, (3, 4, 2)), WeightGuide(SHAPES, scale=0.2)


def test_sites_are_named_as_parameters_and_the_batch_is_scaled_to_the_data_set():
    model, guide = pair()
    x, y = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    drawn = poutine.trace(guide).get_trace(x, y)
    trace = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(x, y)
    assert {n: tuple(trace.nodes[n]["value"].shape) for n in SHAPES} == SHAPES
    assert trace.nodes["y"]["scale"] == 4.0
    w, b, v, c = (drawn.nodes[n]["value"] for n in SHAPES)
    logits = F.linear(F.linear(x, w, b).relu(), v, c)
    torch.testing.assert_close(trace.nodes["y"]["fn"].logits, logits.log_softmax(-1))


def test_predictions_are_means_of_probabilities_over_the_guide():
    model, guide = pair()
    x = torch.randn(6, 3)
    torch.manual_seed(1)
    found = predictive(model, guide, x, 3)
    torch.manual_seed(1)
    by_hand = []
    for _ in range(3):
        w, b, v, c = _values(guide, x)
        by_hand.append(F.linear(F.linear(x, w, b).relu(), v, c).softmax(-1))
    torch.testing.assert_close(found, torch.stack(by_hand).mean(0))


def _values(guide, x):
    nodes = poutine.trace(guide).get_trace(x).nodes
    return [nodes[name]["value"] for name in SHAPES]


def test_scores_of_known_probabilities():
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], dtype=torch.float64)
    found = scores(p, torch.tensor([0, 1, 1]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["log-loss"] == pytest.approx(-torch.tensor([0.9, 0.8, 0.4]).double().log().mean().item())
    assert found["calibration error"] == pytest.approx((0.1 + 0.2 + 0.6) / 3)


@pytest.mark.filterwarnings("ignore::pathscore.programs.broadcasting.BroadcastingWarning")
@pytest.mark.parametrize("estimator", ["*.weight=flipout", "*.weight=local-reparameterisation,*.bias=flipout"])
def test_a_run_trains_evaluates_and_resumes(tmp_path, estimator, capsys):
    words = ["train", "--model", "bnn", "--units", "4", "--estimator", estimator, "--eval-samples", "3", "--quiet"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert cli.main([*words, "--steps", "8", "--out", str(whole)]) == 0
    assert cli.main([*words, "--steps", "4", "--out", str(cut)]) == 0
    assert cli.main(["train", "--resume", str(cut), "--steps", "8", "--quiet"]) == 0
    capsys.readouterr()
    one, other = (json.loads((folder / "summary.json").read_text()) for folder in (whole, cut))
    assert one["measures"] == other["measures"] and set(one["measures"]) == {
        "accuracy",
        "log-loss",
        "calibration error",
    }
