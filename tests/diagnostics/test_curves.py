"""Curves of training: no artefact of the epoch's end, no curve outside the frame, no peak of a short last batch."""

import numpy as np
import pytest

from pathscore.diagnostics import curves
from pathscore.diagnostics.palette import LIGHT
from pathscore.runs.pictures import training_curve

ROWS, BATCH = 1500, 64


def metrics(bounds, rows=True, log_steps=50):
    """The lines that a run writes whose steps have these bounds, a mean of each batch's rows."""
    sizes = [BATCH] * (ROWS // BATCH) + [ROWS % BATCH]
    lines, total, seen, batch = [], 0.0, 0, 0
    for step, bound in enumerate(bounds, 1):
        total, seen, batch = total + bound * sizes[batch], seen + sizes[batch], batch + 1
        line = {"step": step, "seconds": step / 100, "train_elbo": total / seen} | ({"rows": seen} if rows else {})
        if step % log_steps == 0 or step == len(bounds):
            lines.append(line)
        if batch == len(sizes):
            lines.append({**line, "epoch_end": True})
            total, seen, batch = 0.0, 0, 0
    return lines


STEPS = np.arange(1, 1441)
RISING = -30 + 6 * (1 - np.exp(-STEPS / 300))


@pytest.mark.parametrize(("rows", "error"), [(True, 1e-9), (False, 0.02)], ids=["rows", "a file without rows"])
def test_stretches_are_the_means_between_two_lines(rows, error):
    step, _, weight, mean = curves.stretches(metrics(RISING, rows)).T
    sizes = np.array(([BATCH] * (ROWS // BATCH) + [ROWS % BATCH]) * 60)
    for first, last, own, found in zip(np.r_[0, step[:-1]].astype(int), step.astype(int), weight, mean, strict=True):
        size = sizes[first:last]
        assert found == pytest.approx(np.average(RISING[first:last], weights=size), abs=error)
        assert own == (size.sum() if rows else last - first)


@pytest.mark.parametrize("rows", [True, False])
def test_the_end_of_an_epoch_makes_no_peak(rows):
    """Noise of one nat a step: means of 72 steps deviate by 0.12, false-alarm rate of 0.6 at most 1e-5 in 89 lines.

    The planted fault is what the file holds, the mean of the epoch so far, of two steps at step 50.
    """
    lines = metrics(np.random.default_rng(0).normal(size=1440), rows)
    assert abs(curves.running(lines, "step")[1]).max() < 0.6
    assert max(abs(line["train_elbo"]) for line in lines) > 1
    _, drawn = curves.running(metrics(RISING, rows), "step")
    assert (np.diff(drawn) > -1e-9).all()


def test_a_running_mean_is_of_the_last_twentieth():
    x, drawn = curves.running(metrics(STEPS.astype(float)), "step")
    assert x[-1] == 1440 and drawn[-1] == pytest.approx(1440 - 72 / 2, abs=1)
    assert curves.running([], "step")[0].size == 0


BETTER = [
    {"step": 10 * i, "seconds": i / 9, "rows": 10, "epoch_end": True, "train_elbo": -150 + i, "valid_elbo": -120.0}
    for i in range(1, 15)
]


@pytest.mark.parametrize(
    "draw",
    [
        lambda lines: curves.training_plot(LIGHT, lines, "step"),
        lambda lines: training_curve(lines).axes[0],
        lambda lines: curves.comparison_plot(LIGHT, {"a": lines, "b": BETTER[:1]}, "step", {"a": 1.0, "b": 1.0}),
    ],
    ids=["page", "run", "comparison"],
)
@pytest.mark.parametrize("valid", [-120.0, -400.0], ids=["better", "worse"])
def test_the_validation_curve_is_in_the_frame(draw, valid):
    low, high = draw([{**line, "valid_elbo": valid} for line in BETTER]).get_ylim()
    assert low < valid < high


def test_no_run_of_a_comparison_is_left_out():
    far = [{k: v for k, v in line.items() if k != "valid_elbo"} for line in BETTER]
    low, _ = curves.comparison_plot(LIGHT, {"a": BETTER, "b": far}, "step", {"a": 1.0, "b": 1.0}).get_ylim()
    assert low < -140


def test_the_gradient_norm_is_pooled_where_the_file_has_it():
    lines = [{"step": s, "gradient_norm": 9.0 if s == 600 else 5.0, "gradient_rms": 5.1} for s in range(50, 1450, 50)]
    assert set(curves.gradient_norms(lines)[1]) == {5.1}
    old = [{k: v for k, v in line.items() if k != "gradient_rms"} for line in lines]
    assert curves.gradient_norms(old)[1].max() == 9.0


def test_a_short_last_stretch_is_no_peak_of_the_gradient_norm():
    lines = [{"step": step, "gradient_rms": 5.0} for step in (50, 100, 150)]
    steps, norms = curves.gradient_norms([*lines, {"step": 155, "gradient_rms": 12.0}])
    assert list(steps) == [50, 100, 155]
    assert norms[-1] == pytest.approx(((50 * 25 + 5 * 144) / 55) ** 0.5)
    assert len(curves.gradient_norms([*lines, {"step": 200, "gradient_rms": 12.0}])[0]) == 4  # a whole one stays
