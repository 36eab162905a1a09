"""Importance summaries against exact values, and k-hat against a tail of known shape."""

import numpy as np
import pytest
import torch
from diagnostics_cases import belief_net, linear_gaussian, log_evidence

from pathscore import exact
from pathscore.diagnostics.importance import importance
from pathscore.diagnostics.programs import draw, prepare
from pathscore.errors import NumericsError, UsageError


def weights(model, guide, x, draws):
    torch.manual_seed(0)
    with torch.no_grad():
        return draw(model, guide, prepare(model, guide, (x,)), draws, (x,)).log_weight


def test_log_evidence_agrees_with_enumeration_on_a_belief_net():
    # 2 000 draws: the guide's relative ESS is about 0.4, so the standard error a point is about 0.03 nat, of the mean
    # of 40 points 0.005; the bias of the logarithm is −se²/2. Pass: mean error ≤ 0.05 nat.
    model, guide, x = belief_net()
    found = importance(weights(model, guide, x, 2000))
    reference = exact.log_evidence(model, guide, x).numpy()
    assert np.abs(found.log_evidence.mean() - reference.mean()) <= 0.05
    assert np.abs(found.log_evidence - reference).mean() <= 0.15
    z = (found.log_evidence - reference) / found.log_evidence_se
    assert np.sqrt(np.mean(z**2)) < 2  # the standard errors mean what they say


def test_a_doubled_weight_is_found():
    # The planted fault: log p(x) off by log 2 on every point must break the line above.
    model, guide, x = belief_net()
    found = importance(weights(model, guide, x, 2000) + np.log(2))
    assert np.abs(found.log_evidence.mean() - exact.log_evidence(model, guide, x).numpy().mean()) > 0.05


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_log_evidence_agrees_with_the_closed_form(scale):
    model, guide, x = linear_gaussian(3, scale=scale)
    found = importance(weights(model, guide, x, 1000))
    assert np.abs(found.log_evidence.mean() - log_evidence(3, x).mean().item()) <= 0.02
    if scale == 1.0:  # the exact posterior: every weight is p(x)
        assert np.abs(found.log_evidence - log_evidence(3, x).numpy()).max() < 1e-3
        assert found.relative_ess.min() > 0.999
        assert np.isneginf(found.khat).all()
        assert np.abs(found.gap).max() < 1e-3


def test_the_gap_is_the_divergence_of_the_guide():
    # q = N(m, 4 C) against p = N(m, C) in 3 dimensions: KL = 3 (½ · 4 − ½ − log 2).
    model, guide, x = linear_gaussian(1, scale=2.0)
    found = importance(weights(model, guide, x, 4000))
    assert found.gap.mean() == pytest.approx(3 * (1.5 - np.log(2)), abs=0.03)


def test_khat_finds_the_shape_of_a_known_tail():
    # w = u^(−k) has a generalised Pareto tail of shape k; 2 000 draws fit it to about ±0.1, the mean of 200 to 0.01.
    rng = np.random.default_rng(0)
    for shape in (0.3, 0.5, 0.9):
        found = importance(-shape * np.log(rng.uniform(size=(2000, 200))))
        assert found.khat.mean() == pytest.approx(shape, abs=0.06)


def test_khat_is_per_datum_and_not_joint():
    # The joint weight of 50 independent points is unusable although each point is fine.
    rng = np.random.default_rng(1)
    logs = 0.5 * rng.normal(size=(1000, 50))
    each, joint = importance(logs), importance(logs.sum(1))
    assert (each.khat < each.khat_threshold).all()
    assert float(joint.khat) > joint.khat_threshold
    assert joint.khat.shape == ()


def test_odd_weights():
    rng = np.random.default_rng(2)
    logs = rng.normal(size=(100, 3))
    logs[:, 1] = -40.0  # constant
    logs[::2, 2] = -np.inf  # zero weights
    found = importance(logs)
    assert np.isneginf(found.khat[1]) and found.relative_ess[1] == pytest.approx(1.0)
    assert found.relative_ess[2] < 0.6
    assert np.isnan(importance(logs[:10, :1]).khat).all()  # too few draws for a tail
    for bad in (np.nan, np.inf):
        with pytest.raises(NumericsError, match="1 of 300 log weights are NaN or"):
            importance(np.where(np.arange(300).reshape(100, 3) == 7, bad, logs))
    with pytest.raises(UsageError, match="at least two draws"):
        importance(logs[:1])
    with pytest.raises(NumericsError, match="zero density"):
        importance(np.full((30, 2), -np.inf))
