"""The benchmarks run, write what they say, and time the same amount of work in every variant."""

import json
import sys
from statistics import mean

import pytest
import torch

import benchmarks.__main__ as program
from benchmarks.cases import CASES
from benchmarks.handwritten import networks
from benchmarks.steps import VARIANTS
from guides import AmortizedGuide
from models import VAE


def test_tiny_writes_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "benchmarks",
            "steps",
            "--tiny",
            "--threads",
            str(torch.get_num_threads()),
            "--json",
            str(tmp_path / "t.json"),
        ],
    )
    program.main()
    rows = json.loads((tmp_path / "t.json").read_text())
    assert [row["variant"] for row in rows] == list(VARIANTS) == ["handwritten", "pyro-svi", "eager"]
    assert all(set(row) == {"case", "variant", "threads", "milliseconds", "ratio_to_handwritten"} for row in rows)
    assert (
        all(row["milliseconds"] > 0 and row["case"] == "digits" for row in rows)
        and rows[0]["ratio_to_handwritten"] == 1
    )
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_an_unknown_case_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "steps", "--cases", "mnits"])
    with pytest.raises(SystemExit, match="2"):
        program.main()
    assert "unknown mnits: choose from digits" in capsys.readouterr().err


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_variants_do_the_same_work(case):
    """As many parameters; and the loss of the first steps agrees to a tenth, Pyro's being that of the whole batch."""
    raw = case.latents * (2 if case.latent == "normal" else 1)
    by_hand = sum(p.numel() for part in networks(case, raw) for p in part.parameters())
    ours = sum(p.numel() for kind in (VAE, AmortizedGuide) for p in kind(**case.sizes).parameters())
    assert by_hand == ours
    x = case.data()
    losses = {}
    for name, make in VARIANTS.items():
        torch.manual_seed(0)
        step = make(case)
        losses[name] = mean(step(x) for _ in range(3)) / (len(x) if name == "pyro-svi" else 1)
    assert losses["eager"] == pytest.approx(losses["pyro-svi"], rel=1e-5)
    assert losses["handwritten"] == pytest.approx(losses["eager"], rel=0.1)  # other initial weights
