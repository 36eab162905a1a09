"""The benchmarks run, write what they say, and time the same amount of work in every variant."""

import json
import sys
from statistics import mean

import pytest
import torch

import benchmarks.__main__ as program
import benchmarks.parts
from benchmarks.cases import CASES
from benchmarks.evaluation import evaluation
from benchmarks.footprint import peak_megabytes
from benchmarks.handwritten import network
from benchmarks.numpyro_process import has_numpyro
from benchmarks.products import flops, products
from benchmarks.variants import VARIANTS
from guides import AmortizedGuide
from models import VAE

KEYS = {"case", "variant", "threads", "milliseconds", "ratio_to_handwritten"}


def test_tiny_writes_rows(tmp_path, monkeypatch, capsys):
    threads, file = str(torch.get_num_threads()), tmp_path / "times.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks", "steps", "--tiny", "--threads", threads, "--json", str(file)])
    program.main()
    rows = json.loads(file.read_text())
    variants = ["handwritten", "handwritten-compiled", "pyro-svi", "eager", "compiled"]
    assert list(VARIANTS) == variants
    assert [row["variant"] for row in rows] == variants + ["numpyro"] * has_numpyro(sys.executable)
    assert all(set(row) >= KEYS and row["milliseconds"] > 0 and row["case"] == "digits" for row in rows)
    assert rows[0]["ratio_to_handwritten"] == 1
    printed = capsys.readouterr().out
    assert all(row["variant"] in printed for row in rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cases", "mnits"], "unknown mnits: choose from digits"),
        (["--threads", "one"], "takes whole numbers, as in 1,2, got 'one'"),
    ],
)
def test_a_word_that_is_wrong_is_named(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "steps", *words])
    with pytest.raises(SystemExit, match="2"):
        program.main()
    assert message in capsys.readouterr().err


def first_losses(case) -> dict[str, float]:
    """The mean of three first losses per variant, Pyro's being that of the whole batch."""
    x = case.data()
    losses = {}
    for name in ("handwritten", "pyro-svi", "eager"):
        torch.manual_seed(0)
        step = VARIANTS[name](case)
        losses[name] = mean(step(x) for _ in range(3)) / (len(x) if name == "pyro-svi" else 1)
    return losses


def same_work(case, losses: dict[str, float]) -> bool:
    """Whether losses agree to a fifth: other initial weights by hand; other draws in Pyro beside an estimator."""
    pyro_s = pytest.approx(losses["pyro-svi"], rel=0.1 if case.estimator else 1e-5)
    return losses["eager"] == pyro_s and losses["handwritten"] == pytest.approx(losses["eager"], rel=0.2)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_variants_do_the_same_work(case):
    """As many parameters, and the same first losses."""
    sizes = (case.data_size, case.hidden, case.raw), (case.latents, case.hidden, case.data_size)
    by_hand = sum(p.numel() for three in sizes for p in network(*three).parameters())
    ours = sum(p.numel() for kind in (VAE, AmortizedGuide) for p in kind(**case.sizes).parameters())
    assert by_hand == ours
    assert same_work(case, first_losses(case))


def test_a_variant_that_does_other_work_is_noticed():
    """Planted: half of the data points left out by hand."""
    case = CASES["digits"]
    losses = first_losses(case)
    assert not same_work(case, {**losses, "handwritten": losses["handwritten"] / 2})


def test_products_of_a_step():
    """64-128-8 at batch 128: four maps, forward, and back to weights and, but for the first, inputs."""
    case = CASES["digits"]
    maps = [64 * 128, 128 * 16, 8 * 128, 128 * 64]
    assert flops(case) == 2 * 128 * (2 * maps[0] + 3 * sum(maps[1:]))
    assert products(case)(case.data()) == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
def test_memory_is_that_of_this_process():
    assert 50 < peak_megabytes() < 100_000


def test_the_parts_of_a_step(monkeypatch):
    monkeypatch.setattr(benchmarks.parts, "TURNS", 1)
    monkeypatch.setattr(benchmarks.parts, "CALLS", 2)
    found = benchmarks.parts.parts(program.TINY)
    assert set(found) == {"step", "graph", "in a row", "optimiser", "products"} and all(
        ms >= 0 for ms in found.values()
    )


def test_evaluation_is_timed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "evaluation", "--tiny", "--threads", str(torch.get_num_threads())])
    program.main()
    assert "10000 data points × 5000 draws: " in capsys.readouterr().out
    found = evaluation(program.TINY, 2, 10)
    assert found.seconds > 0 and found.products > 0 and found.megabytes > 0
