"""The training loop: same bits however it is cut, interrupted or watched; metrics; flat memory; isolation of runs."""

import gc
import json
import math
import os
import threading

import pyro
import pytest
import torch
from training_runs import ROWS, data, equal, make, training, weights

from models import LATENTS
from models.latents import latent_layers
from pathscore.compiling.compiled_elbo import CompiledELBO
from pathscore.data.epochs import binarize, epoch_order
from pathscore.elbos import ELBOS, KLWeight, kl_weighted, make_elbo, refusal
from pathscore.errors import NumericsError, RunDirError, UsageError
from pathscore.estimators import ESTIMATORS
from pathscore.machine.signals import Interrupted, caught
from pathscore.runs import checkpoint
from pathscore.runs.metrics import Metrics, read_metrics
from pathscore.runs.records import Training
from pathscore.runs.training import Loop, fit
from pathscore.svi import SVI
from pathscore.svi.schedules import SCHEDULES, make_schedule


def straight(steps: int, latent="normal", **options):
    svi = make(latent)
    fitted = fit(svi, data(), training(steps, **options))
    return weights(svi), fitted


SERVED = ("bernoulli", "categorical", "normal")


def serves(name: str, latent: str) -> bool:
    fn = LATENTS[latent](4, 3)(torch.zeros(8, LATENTS[latent](4, 3).raw_size))
    return ESTIMATORS[name]().refusal(fn, ESTIMATORS[name].min_particles) is None


class TestBits:
    @pytest.mark.parametrize("latent", ["normal", "bernoulli"])
    @pytest.mark.parametrize("at", [1, 3, 7, 8, 13])
    def test_resuming_from_any_step_continues_bit_for_bit(self, latent, at, tmp_path):
        """7 batches an epoch: from the start, within one, at its last batch, after it; gradients are clipped."""
        fit(make(latent), data(), training(at), run_dir=tmp_path, x_valid=data()[:9].round())
        torch.manual_seed(99)
        svi = make(latent, seed=5)
        fitted = fit(svi, data(), training(15), run_dir=tmp_path, x_valid=data()[:9].round(), resume=True)
        assert fitted.resumed_from == at and fitted.steps == 15
        assert equal(weights(svi), straight(15, latent)[0])

    @pytest.mark.parametrize("name", [n for n in ESTIMATORS if any(serves(n, latent) for latent in SERVED)])
    def test_every_estimator_resumes_with_what_it_has_learned(self, name, tmp_path):
        """On the first family that it serves; its own parameters and buffers are part of the compared state."""
        served = next(latent for latent in SERVED if serves(name, latent))
        runs = [
            make(served, estimators=name, particles=ESTIMATORS[name].min_particles, seed=seed) for seed in (0, 0, 5)
        ]
        torch.manual_seed(1)
        fit(runs[0], data(), training(9))
        torch.manual_seed(1)
        fit(runs[1], data(), training(4), run_dir=tmp_path)
        torch.manual_seed(77)
        fit(runs[2], data(), training(9), run_dir=tmp_path, resume=True)
        assert equal(weights(runs[0]), weights(runs[2]))

    def test_watching_changes_nothing(self, tmp_path):
        plain, _ = straight(15)
        svi = make()
        options = {"log_steps": 1, "checkpoint_steps": 1}
        fit(svi, data(), training(15, **options), run_dir=tmp_path, x_valid=data()[:30].round())
        assert equal(weights(svi), plain)

    def test_equals_steps_by_hand(self):
        svi = make()
        losses = []
        for epoch in range(2):
            x, order = binarize(data(), "dynamic", 3, epoch), epoch_order(ROWS, 3, epoch)
            losses += [
                svi.step(x[order[start : start + 8]]) * len(order[start : start + 8]) for start in range(0, ROWS, 8)
            ]
        values, fitted = straight(14)
        assert equal(weights(svi), values)
        assert fitted.train_elbo == pytest.approx(-sum(losses[7:]) / ROWS)
        assert fitted.epochs == 2

    def test_the_planted_fault_of_a_forgotten_position_is_noticed(self, tmp_path):
        fit(make(), data(), training(5), run_dir=tmp_path)
        payload = checkpoint.load(tmp_path).payload
        payload["position"]["batch"] = 0
        checkpoint.save(tmp_path, payload)
        svi = make()
        fit(svi, data(), training(15), run_dir=tmp_path, resume=True)
        assert not equal(weights(svi), straight(15)[0])

    def test_a_stopped_run_of_many_epochs_equals_one_of_as_many_steps(self):
        svi = make()
        fit(svi, data(), Training(batch_size=8, epochs=2, binarize="dynamic", seed=3, quiet=True))
        assert equal(weights(svi), straight(14)[0])

    def test_two_runs_in_one_process(self):
        """Interleaved: `first` and `second` share every name, and neither notices the other."""
        alone, _ = straight(6)
        first, second = make(), make(seed=1)
        torch.manual_seed(0)
        make()  # leaves the stream as `straight` had it
        x = binarize(data(), "dynamic", 3, 0)[epoch_order(ROWS, 3, 0)]
        for start in range(0, 48, 8):
            first.step(x[start : start + 8])
            with torch.random.fork_rng():
                second.step(x[start : start + 8])
        assert equal(weights(first), alone)
        assert len(pyro.get_param_store()) == 0

    @pytest.mark.parametrize("elbo", ELBOS)
    @pytest.mark.parametrize("latent", ["normal", "laplace", "lognormal", "bernoulli", "categorical"])
    def test_every_cell_trains_three_steps_or_is_refused(self, elbo, latent):
        particles = ELBOS[elbo].min_particles
        for batch_size in (1, 8):
            why = refusal(elbo, latent_layers(latent, (4,), 3), particles=particles, batch_size=batch_size)
            svi = make(latent, elbo, particles=particles)
            if why is None:
                fitted = fit(svi, data(), training(3, batch_size=batch_size))
                assert fitted.steps == 3 and math.isfinite(fitted.train_elbo)
            else:
                assert "(legal here: trace, " in why


class TestFaults:
    def test_a_nan_batch_names_step_site_and_last_good_checkpoint(self, tmp_path):
        x = data().round()
        x[epoch_order(ROWS, 3, 0)[20]] = float("nan")  # in the third batch
        svi = make()
        with pytest.raises(NumericsError) as caught_error:
            fit(svi, x, training(9, binarize="none", checkpoint_steps=1), run_dir=tmp_path)
        message = str(caught_error.value)
        assert message.startswith("step 3: the loss is not finite") or message.startswith("step 3: the loss is nan")
        assert "first at site" in message
        assert message.endswith(f"; the last good checkpoint is of step 2, in {tmp_path}")
        assert checkpoint.load(tmp_path).payload["position"]["step"] == 2

    def test_another_latent_is_refused(self, tmp_path):
        fit(make(), data(), training(2), run_dir=tmp_path, config={"latent": "normal"})
        with pytest.raises(RunDirError, match="--latent normal, this run has laplace"):
            fit(make("laplace"), data(), training(4), run_dir=tmp_path, config={"latent": "laplace"}, resume=True)
        with pytest.raises(RunDirError, match=r"checkpoint\.pt: the saved state does not fit this program: "):
            fit(make("bernoulli"), data(), training(4), run_dir=tmp_path, resume=True)

    def test_a_damaged_checkpoint_is_told(self, tmp_path):
        fit(make(), data(), training(4, checkpoint_steps=3), run_dir=tmp_path)
        path = tmp_path / "checkpoint.pt"
        path.write_bytes(path.read_bytes()[:-1])
        svi = make()
        fitted = fit(svi, data(), training(9), run_dir=tmp_path, resume=True)
        assert fitted.note.endswith(f"using {tmp_path / 'checkpoint.previous.pt'}") and fitted.resumed_from == 3
        assert equal(weights(svi), straight(9)[0])

    def test_a_directory_that_vanishes(self, tmp_path):
        loop = Loop(make(), data(), training(50, checkpoint_steps=3), tmp_path / "run", KLWeight(), {})
        with pytest.raises(RunDirError, match=r"cannot write .*run"):
            loop.run()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"steps": 3, "epochs": 2}, "give one of"),
            ({}, "give one of"),
            ({"steps": 3, "batch_size": 0}, "--batch-size must"),
        ],
    )
    def test_lengths(self, options, message):
        with pytest.raises(UsageError, match=message):
            Training(**options)

    def test_interrupted_in_process(self, tmp_path):
        svi, steps = make(), []
        plain = svi.step
        svi.step = lambda x: (steps.append(1), os.kill(os.getpid(), 15) if len(steps) == 4 else None, plain(x))[2]
        with pytest.raises(Interrupted, match=r"stopped by SIGTERM after step 4: continue with --resume") as stop:
            fit(svi, data(), training(9), run_dir=tmp_path)
        assert stop.value.exit_code == 143
        again = make()
        fit(again, data(), training(9), run_dir=tmp_path, resume=True)
        assert equal(weights(again), straight(9)[0])

    def test_a_thread_catches_no_signals(self):
        wishes = []

        def work():
            with caught() as wish:
                wishes.append(wish)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert wishes[0].signal is None


class TestMetrics:
    def test_lines(self, tmp_path):
        kl_weight = KLWeight(1.0, 10)
        torch.manual_seed(0)
        svi = make()
        svi = SVI(
            kl_weighted(svi.model, kl_weight),
            kl_weighted(svi.guide, kl_weight),
            "adam",
            make_elbo("trace"),
            per_datum=True,
        )
        fit(svi, data(), training(15, log_steps=5), run_dir=tmp_path, x_valid=data()[:20].round(), kl_weight=kl_weight)
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if "lr" in line]
        ends = [line for line in lines if "epoch_end" in line]
        assert [line["step"] for line in steps] == [5, 10, 15] and [line["step"] for line in ends] == [7, 14, 15]
        assert [line["kl_weight"] for line in steps] == [0.5, 1.0, 1.0]
        assert [line["epoch_end"] for line in ends] == [True, True, False]
        assert all(line["valid_elbo"] == pytest.approx(-line["valid_rate"] - line["valid_distortion"]) for line in ends)

    @pytest.mark.parametrize("every", [6, 7, 13, 15])
    def test_a_killed_runs_lines_are_those_of_one_that_was_not(self, every, tmp_path):
        """Resumed from the last checkpoint but one, after later lines were written, those of an epoch's end too."""
        found = []
        for name, killed in (("killed", True), ("whole", False)):
            (tmp_path / name).mkdir()
            options = {"run_dir": tmp_path / name, "x_valid": data()[:20].round()}
            if killed:
                plan = training(15, log_steps=3, checkpoint_steps=every)
                fit(make(), data(), plan, **options)
                (tmp_path / name / "checkpoint.pt").unlink()
            fit(make(), data(), training(15, log_steps=3), **options, resume=killed)
            lines = read_metrics(tmp_path / name / "metrics.jsonl")
            found.append([{k: v for k, v in line.items() if k != "seconds"} for line in lines])
        assert found[0] == found[1] and len(found[0]) == 8

    def test_the_gradient_norm_of_a_line_is_over_all_steps_since_the_one_before(self, tmp_path):
        for name, every in (("each", 1), ("pooled", 5)):
            (tmp_path / name).mkdir()
            torch.manual_seed(0)
            fit(make(), data(), training(10, log_steps=every), run_dir=tmp_path / name)
        each, pooled = (
            [line for line in read_metrics(tmp_path / name / "metrics.jsonl") if "gradient_norm" in line]
            for name in ("each", "pooled")
        )
        norms = torch.tensor([line["gradient_norm"] for line in each]).double()
        assert [line["gradient_rms"] for line in each] == pytest.approx(norms.tolist())
        assert [line["gradient_rms"] for line in pooled] == pytest.approx(
            norms.view(2, 5).square().mean(1).sqrt().tolist()
        )
        assert [line["rows"] for line in each] == [8, 16, 24, 32, 40, 48, 50, 8, 16, 24]

    def test_a_partial_last_line_and_later_steps_are_dropped(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4, "tra')
        assert [line["step"] for line in read_metrics(path)] == [1, 2, 3]
        metrics = Metrics(path, lines=2)
        metrics.write(step=3, train_elbo=float("nan"))
        metrics.close()
        assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "train_elbo": null}\n'

    def test_a_new_run_starts_a_new_file(self, tmp_path):
        (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
        Metrics(tmp_path / "metrics.jsonl").close()
        assert (tmp_path / "metrics.jsonl").read_text() == ""

    def test_quiet_when_not_a_terminal(self, capfd):
        straight(3)
        fit(make(), data(), training(3, quiet=False))
        assert capfd.readouterr() == ("", "")


class TestSchedules:
    def test_values(self):
        cosine = make_schedule("cosine", total_steps=10)
        assert [cosine(step) for step in (0, 5, 10, 20)] == pytest.approx([1, 0.5, 0, 0])
        linear = make_schedule("linear", total_steps=10, warmup_steps=4)
        assert [linear(step) for step in (0, 1, 3, 5)] == pytest.approx([0.25, 0.45, 0.7, 0.5])
        pieces = make_schedule([(2, 1.0), (3, 0.1)])
        assert [pieces(step) for step in range(7)] == [1.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.1]

    def test_iwae(self):
        """1e-3 · 10^(−i/7) for 3^i passes, i = 0 … 7."""
        schedule = make_schedule("iwae", steps_per_pass=2)
        edges = [0, 2, 8, 26, 80, 242, 728, 2186]
        assert [schedule(edge) for edge in edges] == pytest.approx([10 ** (-i / 7) for i in range(8)])
        assert [schedule(edge - 1) for edge in edges[1:]] == pytest.approx([10 ** (-i / 7) for i in range(7)])
        assert schedule(10**6) == pytest.approx(0.1)

    @pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"constant"}))
    def test_a_length_that_is_missing_is_named(self, name):
        with pytest.raises(UsageError, match=f"the {name} schedule needs (total_steps|steps_per_pass) of at least 1"):
            make_schedule(name)

    def test_unknown(self):
        with pytest.raises(UsageError, match="unknown schedule 'cosin': did you mean 'cosine'"):
            make_schedule("cosin")
        with pytest.raises(UsageError, match="steps of at least 1"):
            make_schedule([(0, 1.0)])


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(svi: SVI, steps: int, leak: list | None = None) -> set[str]:
    """What grows over `steps` steps, after a warm-up: tensors, files, groups, store entries, or memory by 8 MB."""
    x = data().round()
    for _ in range(200):
        svi.step(x)
    before = holdings(svi)
    for _ in range(steps):
        svi.step(x)
        if leak is not None:
            leak.append(torch.ones(1))
    return {name for name, amount in holdings(svi).items() if amount > before[name] + 8e6 * (name == "memory")}


def holdings(svi: SVI) -> dict[str, int]:
    gc.collect()
    return {
        "tensors": sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()),
        "memory": resident(),
        "files": len(os.listdir("/proc/self/fd")),
        "groups": len(svi.optim.torch_optim.param_groups),
        "entries": len(svi.recorder.params) + len(svi.recorder.sites) + len(pyro.get_param_store()),
    }


linux = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads memory from /proc")


@linux
def test_two_thousand_steps_leave_memory_flat_and_a_leak_is_noticed():
    assert growth(make("bernoulli"), 2_000) == set()
    assert growth(make("normal"), 100, leak=[]) == {"tensors"}


@linux
@pytest.mark.proof
@pytest.mark.parametrize("latent", ["normal", "bernoulli"])
@pytest.mark.parametrize("wrap", [lambda elbo: elbo, CompiledELBO], ids=["eager", "compiled"])
def test_twenty_thousand_steps_leave_memory_flat(latent, wrap):
    assert growth(make(latent, wrap=wrap), 20_000) == set()
