"""docs/reproductions.py: stretches of steps out of running means that begin anew with each epoch."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "docs" / "reproductions.py"


def test_stretches_are_means_of_what_was_logged():
    spec = importlib.util.spec_from_file_location("reproductions", PATH)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    bounds = [-200.0 + 0.1 * step for step in range(500)]  # of steps 1 … 500; an epoch has 250
    lines = []
    for step in range(50, 501, 50):
        start = 250 * ((step - 1) // 250)
        lines.append({"step": step, "train_elbo": sum(bounds[start:step]) / (step - start)})
        if step % 250 == 0:
            lines.append({**lines[-1], "epoch_end": True, "valid_elbo": 0.0})
    found = script.stretches(lines, 208)  # cut at 200 and 400
    assert [row[:2] for row in found] == [(1, 200), (201, 400)]
    for first, last, mean, late in found:
        assert mean == pytest.approx(sum(bounds[first - 1 : last]) / (last - first + 1))
        assert late == pytest.approx(sum(bounds[last - 50 : last]) / 50)
