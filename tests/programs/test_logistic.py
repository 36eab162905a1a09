"""Bayesian logistic regression: its exact figures, each estimator against them, and the run that it makes.

Estimators: N = 20 000 gradients of four weights on a batch of 8 of 40 rows, two draws each; |z| ≤ 4.5 in every
coordinate, false alarms 7e-6 a coordinate; a bias of 6 standard errors, 0.04 deviations of one gradient, is found in
93 of 100 cases. Planted: a batch that is not scaled up to the data set, and gradients that are 10 % too large.
"""

import json

import numpy as np
import pytest
import torch

from guides import COVARIANCES
from models.entries.logistic import PROGRAM, calibration_error, members
from models.logistic import LogisticRegression, divergence, exact_bound, expected_log_likelihood, predictive
from pathscore import exact
from pathscore.command import cli
from pathscore.data import load_dataset
from pathscore.gradients.lab import Lab
from pathscore.runs import checkpoint, job

N, ROWS = 20_000, 40
pytestmark = pytest.mark.usefixtures("float64")


def rows(count: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    data = load_dataset("breast-cancer")
    assert data.labels is not None
    return data.x[:count, :width].double(), data.labels[:count]


def trained(covariance: str, size: int):
    """A guide somewhere between the start and the posterior."""
    torch.manual_seed(1)
    guide = COVARIANCES[covariance]("w", size)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        guide.log_scale.sub_(0.5)
    return guide


def law_of(leaves):
    """The Normal with these parameters: loc and scale (D,), or loc and a lower triangle (D, D)."""
    if leaves[1].dim() == 2:
        return torch.distributions.MultivariateNormal(leaves[0], scale_tril=leaves[1])
    return torch.distributions.Independent(torch.distributions.Normal(*leaves), 1)


def exact_gradient(guide, x, y, scale: float) -> torch.Tensor:
    """By the parameters of the site; what stands above a triangle's diagonal counts for nothing."""
    law = guide.law()
    held = (law.loc, law.scale_tril) if hasattr(law, "scale_tril") else (law.base_dist.loc, law.base_dist.scale)
    leaves = [leaf.detach().requires_grad_() for leaf in held]
    q = law_of(leaves)
    bound = scale * expected_log_likelihood(q, x, y).sum() - divergence(q, 1.0)
    loc, root = torch.autograd.grad(bound, leaves)
    return torch.cat([loc, root[below(root)]])


def below(root: torch.Tensor) -> torch.Tensor:
    """A mask: all of a vector, the lower triangle of a matrix."""
    return torch.ones_like(root, dtype=torch.bool) if root.dim() == 1 else torch.ones_like(root).tril().bool()


def largest_z(covariance: str, word: str, factor: float = 1.0, total: int = ROWS) -> float:
    x, y = rows(8, 3)
    guide, model = trained(covariance, 4), LogisticRegression(total)
    lab = Lab(model, guide, (x, y), particles=2)
    (objective,) = lab.objectives([word]).values()
    torch.manual_seed(0)
    lab.learn(objective, 100)
    moments, _, _ = lab.draw(objective, N)
    size = (4,) if covariance == "diagonal" else (4, 4)
    kept = torch.cat([torch.ones(4, dtype=torch.bool), below(torch.ones(size)).flatten()])
    apart = factor * moments.mean[kept] - exact_gradient(guide, x, y, ROWS / len(x))
    return (apart / (moments.variance[kept] / moments.count).sqrt()).abs().max().item()


DIAGONAL = ("pathwise", "stl", "score-avg", "measure-valued", "delta", "delta(order=1)")


@pytest.mark.parametrize(
    ("covariance", "word"),
    [*(("diagonal", word) for word in DIAGONAL), *(("full", word) for word in ("pathwise", "score-avg", "delta"))],
)
def test_every_estimator_has_the_exact_mean(covariance, word):
    assert largest_z(covariance, word) <= 4.5


def test_planted_faults_are_caught():
    assert largest_z("diagonal", "pathwise", factor=1.1) > 4.5
    assert largest_z("diagonal", "pathwise", total=8) > 4.5


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_exact_bound_is_that_of_a_product_rule(covariance):
    """One feature and a bias: the engine's own quadrature sums over both weights, 64 nodes each."""
    x, y = rows(6, 1)
    guide = trained(covariance, 2)
    if covariance == "diagonal":
        reference = exact.elbo(LogisticRegression(6), guide, x, y, nodes=64).detach()
    else:
        law = guide.law()
        t, weight = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(64))
        w = law.loc + torch.cartesian_prod(t, t) @ law.scale_tril.T
        eta = w @ torch.cat([x, torch.ones(6, 1)], 1).T
        likelihood = torch.distributions.Bernoulli(logits=eta).log_prob(y.double()).sum(-1)
        share = torch.cartesian_prod(weight, weight).prod(-1) / (2 * torch.pi)
        prior = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
        reference = (share * likelihood).sum() - torch.distributions.kl_divergence(law, prior)
    assert exact_bound(guide.law(), x, y).item() == pytest.approx(reference.item(), abs=1e-9)


def test_predictions_are_those_of_many_draws():
    """200 000 draws of the weights: standard errors below 0.0012, |z| ≤ 4.5; a bias of the mean alone is seen."""
    x, _ = rows(5, 30)
    guide = COVARIANCES["diagonal"]("w", 31)
    with torch.no_grad():
        guide.loc.fill_(0.3)
    draws = torch.sigmoid(guide.law().sample((200_000,)) @ torch.cat([x, torch.ones(5, 1)], 1).T)
    error = draws.std(0) / len(draws) ** 0.5
    assert ((predictive(guide.law(), x) - draws.mean(0)) / error).abs().max() < 4.5
    plain = torch.sigmoid(guide.loc @ torch.cat([x, torch.ones(5, 1)], 1).T)
    assert ((plain - draws.mean(0)) / error).abs().max() > 4.5


def test_the_calibration_error_is_the_one_written_out():
    p, y = torch.tensor([0.05, 0.15, 0.15, 0.95, 1.0]), torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0])
    assert [int(m.sum()) for m in members(p)] == [1, 2, 2]
    assert calibration_error(p, y) == pytest.approx((0.05 + 0.7 + 0.05) / 5)


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


@pytest.mark.filterwarnings("ignore:An error occurred:UserWarning")
def test_a_run_resumes_bit_for_bit_and_every_verb_serves_it(tmp_path, capsys, monkeypatch):
    train = ["train", "--model", "logistic", "--particles", 4, "--eval-samples", 20, "--quiet"]
    assert run(*train, "--steps", 30, "--out", tmp_path / "whole") == 0, capsys.readouterr().err
    with monkeypatch.context() as patch:  # pictures and the table of gradients are those of the first run
        patch.setattr(job, "save_pictures", lambda *args: [])
        patch.setattr(job, "finish", lambda *args: "")
        assert run(*train, "--steps", 17, "--out", tmp_path / "parts") == 0
        assert run("train", "--resume", tmp_path / "parts", "--steps", 30, "--quiet") == 0
    whole, parts = (checkpoint.load(tmp_path / n).payload["svi"]["modules"]["guide"] for n in ("whole", "parts"))
    assert whole and all(torch.equal(whole[n], parts[n]) for n in whole)
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["dataset"] == "breast-cancer" and set(summary["measures"]) == {
        "accuracy",
        "Brier score",
        "calibration error",
    }
    exactly, sampled = summary["exact"]["log predictive density"], summary["predictive_density"]
    assert abs(exactly - sampled) < 0.5 and summary["floor"]["one probability"] < -0.5
    assert {"weights.png", "calibration.png"} <= {p.name for p in (tmp_path / "whole").glob("*.png")}
    assert run("gradients", tmp_path / "whole", "--estimators", "pathwise,score-avg", "--replicates", 20) == 0
    assert "448 training data points" in capsys.readouterr().out
    quick = ["--draws", 20, "--replicates", 20, "--gap-points", 2, "--chain-points", 0]
    assert run("diagnose", tmp_path / "whole", "--quiet", *quick) == 0
    assert run("compare", tmp_path / "whole", tmp_path / "parts", "--quiet") == 0, capsys.readouterr().err


def test_labels_of_three_classes_are_refused(tmp_path, capsys):
    np.savez(tmp_path / "own.npz", x=np.random.default_rng(0).normal(size=(30, 2)), y=np.arange(30) % 3)
    code = run("train", "--model", "logistic", "--data", tmp_path / "own.npz", "--out", tmp_path / "run")
    assert code == 2
    assert "y has labels other than 0 and 1: --model logistic takes two classes" in capsys.readouterr().err


def test_its_defaults_are_those_of_the_preset():
    assert PROGRAM.settle(PROGRAM.options(), None, False) == {"steps": 5000, "batch_size": 32, "particles": 50}
