"""What a GPU alone can show: `pytest -m gpu`, a few minutes on a machine with one; skipped elsewhere.

Every objective and estimator trains there, compiled steps are recorded and agree with eager ones, a recording that
fails leaves nothing behind, runs resume bit for bit, memory stays flat, and the lab, the evaluation and the commands
work.
"""

import json
import math
import time
import warnings

import pyro
import pytest
import torch

from guides import AmortizedGuide
from models import LATENTS, VAE
from pathscore import ELBOS, ESTIMATORS, SVI, CompiledELBO, OptimizerSpec, evaluate, make_elbo, measure
from pathscore.command import cli
from pathscore.compiling import cuda_graph
from pathscore.compiling.compiled_elbo import EagerWarning
from pathscore.errors import NumericsError, UsageError
from pathscore.evaluation import ais, importance_bound
from pathscore.svi.whole_step import WholeStep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("default"),
]

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True, scope="module")
def say_the_card():
    print("card:", torch.cuda.get_device_name() if torch.cuda.is_available() else "none")


def data(rows=64, width=16, seed=0):
    return (torch.rand(rows, width, generator=torch.Generator().manual_seed(seed)) < 0.4).float().to(CUDA)


def make(
    latent="normal", elbo="trace", spec=None, particles=2, compiled=False, layers=(4,), dtype=torch.float32, optim=None
):
    torch.manual_seed(0)
    sizes = {"data_size": 16, "latent": latent, "layers": layers, "hidden": (16,), "classes": 3}
    model, guide = (kind(**sizes).to(CUDA, dtype) for kind in (VAE, AmortizedGuide))
    objective = make_elbo(elbo, spec, num_particles=max(particles, ELBOS[elbo].min_particles))
    objective = CompiledELBO(objective) if compiled else objective
    return SVI(model, guide, optim or OptimizerSpec(), objective, per_datum=True, publish=False)


def state(svi):
    return {name: p.detach().clone() for name, p in svi.parameters().items()}


@pytest.mark.parametrize("latent", LATENTS)
def test_every_objective_trains(latent):
    ran = []
    for elbo in ELBOS:
        try:
            svi = make(latent, elbo)
            losses = [svi.step(data(1 if elbo == "rws" else 64)) for _ in range(3)]
        except UsageError:
            continue
        assert all(math.isfinite(torch.tensor(loss).sum()) for loss in losses), elbo  # wake-sleep has two
        ran.append(elbo)
    assert {"trace", "tracegraph", "iwae", "vimco", "wake-sleep"} <= set(ran)


@pytest.mark.parametrize("latent", LATENTS)
def test_every_estimator_trains(latent):
    ran = 0
    for spec in ESTIMATORS:
        for elbo in ("trace", "iwae"):
            try:
                svi = make(latent, elbo, spec, particles=3)
                losses = [svi.step(data()) for _ in range(3)]
            except UsageError:
                continue
            assert all(map(math.isfinite, losses)), (elbo, spec)
            ran += 1
    assert ran >= 6


COMPILED = [
    ("normal", "trace", None),
    ("normal", "trace", "score"),
    ("normal", "trace", "rloo"),
    ("normal", "iwae", None),
    ("bernoulli", "trace", "disarm"),
    ("bernoulli", "tracegraph", "nvil"),
    ("bernoulli", "trace", "rebar"),
    ("bernoulli", "vimco", "score"),
    ("categorical", "trace", "gumbel"),
]


@pytest.mark.parametrize(("latent", "elbo", "spec"), COMPILED)
def test_compiled_steps_are_recorded_and_agree_with_eager_ones(latent, elbo, spec):
    with warnings.catch_warnings():
        warnings.simplefilter("error", EagerWarning)
        warnings.filterwarnings("error", "--compile: kernels are launched")
        eager, ours = make(latent, elbo, spec), make(latent, elbo, spec, compiled=True)
        losses = []
        for svi in (eager, ours):
            torch.manual_seed(3)
            losses.append([svi.step(data(seed=i)) for i in range(12)])
    assert ours.compiled.built and not ours.compiled.refused
    assert losses[0] == pytest.approx(losses[1], rel=2e-4)
    torch.randn(3, device=CUDA)  # the generator is in order


def whole(svi):
    return [g.whole for g in svi.compiled.built.values() if isinstance(g.whole, WholeStep)]


def batch_of(step):
    return data(33 if step % 4 == 3 else 64, seed=step)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize(("latent", "spec"), [("normal", None), ("bernoulli", "disarm"), ("bernoulli", "nvil")])
def test_whole_steps_are_those_of_an_optimiser_outside(latent, spec, clip):
    """Other sizes in between run eagerly, and share the optimiser's state with the recording."""
    optim = OptimizerSpec(lr=0.01, clip_norm=clip, schedule="cosine", total_steps=30)
    found = []
    for compiled in (False, True):
        svi = make(latent, "trace", spec, compiled=compiled, optim=optim)
        torch.manual_seed(3)
        found.append(([svi.step(batch_of(i)) for i in range(14)], state(svi)))
    assert whole(svi)
    assert found[0][0] == pytest.approx(found[1][0], rel=5e-4)
    for name, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], value, rtol=2e-3, atol=2e-4)


def test_nothing_moves_in_a_step_that_is_not_finite():
    svi = make("bernoulli", "trace", "disarm", compiled=True)
    for i in range(6):
        svi.step(data(seed=i))
    assert whole(svi)
    before, bad = state(svi), data()
    bad[1, 2] = float("nan")
    with pytest.raises(NumericsError, match="step 7"):
        svi.step(bad)
    assert all(torch.equal(value, state(svi)[name]) for name, value in before.items())
    assert all(math.isfinite(svi.step(data(seed=i))) for i in range(3))


def test_several_runs_and_shapes_in_one_process_draw_different_numbers():
    """Graphs share the default generator: one run's draws move on the other's."""
    runs = [make("bernoulli", "trace", "disarm", compiled=True), make("normal", "trace", None, compiled=True)]
    losses = [[svi.step(data(rows)) for svi in runs] for rows in (64, 64, 64, 32, 64, 64)]
    assert all(math.isfinite(loss) for pair in losses for loss in pair)
    draws = [torch.rand(2, device=CUDA) for _ in range(2)]
    assert not torch.equal(*draws)


class FakeCapture:
    """As much of a `Capture` as recording asks for."""

    def __init__(self, tensors):
        self.tensors, self.written = tensors, []
        self.graph = torch.fx.symbolic_trace(torch.nn.Identity())


def test_a_recording_that_fails_leaves_the_process_as_it_was():
    weight = torch.ones(3, device=CUDA)

    def reads_back(w, x):
        return (w * x * float(x.sum().item()), torch.rand(3, device=CUDA))

    torch.cuda.manual_seed(5)
    expected = torch.rand(4, device=CUDA)
    torch.cuda.manual_seed(5)
    with pytest.warns(UserWarning, match="launched one by one"):
        run = cuda_graph.replayed(reads_back, FakeCapture([weight]), [torch.ones(3, device=CUDA)])
    assert run is reads_back
    assert torch.equal(torch.rand(4, device=CUDA), expected)
    svi = make("normal", "trace", None, compiled=True)  # another run records as if nothing had been
    assert all(math.isfinite(svi.step(data())) for _ in range(6)) and svi.compiled.built


@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_resumes_bit_for_bit_and_a_seed_gives_one_result(compiled):
    def steps(svi, count, seed):
        torch.manual_seed(seed)
        for i in range(count):
            svi.step(data(seed=i))

    straight, first = (make("bernoulli", "trace", "disarm", compiled=compiled) for _ in range(2))
    for svi in (straight, first):
        steps(svi, 6, 1)
    assert all(torch.equal(a, b) for a, b in zip(state(straight).values(), state(first).values(), strict=True))
    resumed = make("bernoulli", "trace", "disarm", compiled=compiled)
    resumed.load_state_dict(first.state_dict(), data())
    for svi in (straight, resumed):
        steps(svi, 6, 2)
    a, b = state(straight), state(resumed)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_memory_stays_flat():
    svi = make("normal", "trace", None, compiled=True)
    x = data()
    for _ in range(50):
        svi.step(x)
    torch.cuda.synchronize()
    before, start = torch.cuda.memory_allocated(), time.perf_counter()
    for _ in range(3000):
        svi.step(x)
    torch.cuda.synchronize()
    print(f"compiled steps/s: {3000 / (time.perf_counter() - start):.0f}")
    assert torch.cuda.memory_allocated() <= before + 2**20


def test_float64():
    svi = make("normal", "iwae", None, dtype=torch.float64)
    assert all(math.isfinite(svi.step(data().double())) for _ in range(3))


def test_the_lab_and_the_evaluation():
    svi = make("bernoulli", "trace", "disarm")
    for _ in range(20):
        svi.step(data())
    found = measure(svi, data(4), estimators=["score", "disarm", "enum"], replicates=40_000, warmup=10)
    assert found["disarm"].max_abs_z < 4.5 and found.reference.exact
    svi = make("normal")
    for _ in range(20):
        svi.step(data())
    with svi.scope():
        start = time.perf_counter()
        bound = importance_bound(svi.model, svi.guide, data(2000), num_particles=5000, progress=False)
        print(f"importance bound, K = 5000 x 2000 points: {time.perf_counter() - start:.1f} s")
        annealed = ais(svi.model, svi.guide, data(8))
    assert bound.isfinite().all() and annealed.log_likelihood.isfinite().all()
    assert math.isfinite(evaluate(svi, data(), importance_samples=50)["test_elbo"])


@pytest.mark.parametrize("words", [["--latent", "bernoulli", "--estimator", "disarm"], ["--elbo", "iwae"]])
def test_the_commands(words, tmp_path, monkeypatch, capsys):
    run = str(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    train = ["train", *words, "--device", "cuda", "--steps", "60", "--eval-samples", "50", "--quiet", "--out", "run"]
    assert cli.main(train) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 60
    assert cli.main(["train", "--resume", "run", "--steps", "90", "--quiet"]) == 0
    monkeypatch.chdir("/")
    assert cli.main(["gradients", run, "--estimators", "score", "--replicates", "200"]) == 0, capsys.readouterr().err
    quick = ["--points", "30", "--draws", "30", "--replicates", "50", "--gap-points", "3", "--chain-points", "1"]
    assert cli.main(["diagnose", run, "--quiet", *quick]) == 0, capsys.readouterr().err
    assert len(pyro.get_param_store()) == 0
