"""The same seeds give the recorded results: to the bit on the processor they were recorded on, else to rounding."""

import json

import pytest
import recorded
import torch

HELD = json.loads(recorded.FILE.read_text(encoding="utf-8"))
SAME = HELD["recorded on"] == recorded.here()
PRECISION = {"digits": 2e-3, "bernoulli": 1e-7, "categorical": 1e-7}
"""Relative differences between processors: of float32 after 48 steps, of float64 after 40."""


@pytest.mark.parametrize("name", recorded.RUNS)
def test_a_recorded_run_is_the_same(name, tmp_path):
    before = torch.random.get_rng_state()
    found = recorded.run(name, tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())
    held = HELD["runs"][name]
    if SAME:
        assert found == held
        return
    assert found.keys() == held.keys() and found["counts"] == held["counts"]
    for part in ("figures", "variance"):
        assert found[part] == pytest.approx(held[part], rel=PRECISION[name])
    for part in ("gradient_norm", "valid_elbo"):
        assert found[part] == pytest.approx(held[part], rel=PRECISION[name])


@pytest.mark.parametrize("change", [["--seed", "1"], ["--lr", "0.00101"]])
def test_another_seed_or_rate_is_noticed(change, tmp_path, monkeypatch):
    """The planted fault: what the comparison is made of changes with what it is to notice."""
    monkeypatch.setitem(recorded.RUNS, "bernoulli", [*recorded.RUNS["bernoulli"], *change])
    found, held = recorded.run("bernoulli", tmp_path), HELD["runs"]["bernoulli"]
    assert found["state"] != held["state"]
    assert found["figures"] != pytest.approx(held["figures"], rel=PRECISION["bernoulli"])
