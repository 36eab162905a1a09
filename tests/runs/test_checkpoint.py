"""Checkpoints: written whole or not at all, every damage found, nothing executed, and state that fits or is refused.

Reliability 28, 31 to 33, 35, 36; bit-exact restoring (29) is tested here per kind of program, and through the whole
loop in test_training.py and test_crash.py.
"""

import copy
import os
import random
import subprocess
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.distributions import constraints
from training_runs import data, equal, make, weights

from models.latents import latent_layers
from pathscore.elbos import ELBOS, legal
from pathscore.errors import RunDirError, UsageError
from pathscore.runs import checkpoint, rundir
from pathscore.runs.records import Position
from pathscore.svi import SVI
from pathscore.svi.optimiser import OptimizerSpec

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "runs" / "golden"
PAYLOAD = {"x": torch.arange(6.0), "plain": {"a": (1, 2.5, "b", None, True), "b": [1]}}


class TestFile:
    def test_reads_back_what_was_saved(self, tmp_path):
        checkpoint.save(tmp_path, PAYLOAD)
        loaded = checkpoint.load(tmp_path)
        assert torch.equal(loaded.payload["x"], PAYLOAD["x"]) and loaded.payload["plain"] == PAYLOAD["plain"]
        assert loaded.path == tmp_path / "checkpoint.pt" and loaded.note is None
        assert torch.equal(torch.load(loaded.path, weights_only=True)["x"], PAYLOAD["x"])

    def test_every_flipped_bit_and_every_cut_is_found(self, tmp_path):
        path = checkpoint.save(tmp_path, PAYLOAD)
        whole, rng = path.read_bytes(), random.Random(0)
        for _ in range(300):
            place, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            with pytest.raises(RunDirError, match="is damaged"):
                checkpoint.read(path)
        for length in [0, 1, 80, *rng.sample(range(len(whole)), 50)]:
            path.write_bytes(whole[:length])
            with pytest.raises(RunDirError, match="is damaged"):
                checkpoint.read(path)

    def test_torch_alone_misses_a_flipped_bit(self, tmp_path):
        """The planted fault: without the sha256 a tensor changes in silence."""
        torch.save({"x": torch.ones(4096)}, tmp_path / "x.pt")
        raw = bytearray((tmp_path / "x.pt").read_bytes())
        raw[raw.index(torch.ones(8).numpy().tobytes()) + 2] ^= 1
        (tmp_path / "x.pt").write_bytes(raw)
        assert not torch.equal(torch.load(tmp_path / "x.pt", weights_only=True)["x"], torch.ones(4096))

    def test_falls_back_to_the_previous_one_and_says_so(self, tmp_path):
        checkpoint.save(tmp_path, {"n": 1})
        path = checkpoint.save(tmp_path, {"n": 2})
        path.write_bytes(path.read_bytes()[:-5])
        loaded = checkpoint.load(tmp_path)
        assert loaded.payload["n"] == 1
        assert loaded.note == (
            f"{path} is damaged: its sha256 does not match: using {tmp_path / 'checkpoint.previous.pt'}"
        )

    def test_a_crash_between_the_two_renames_loses_nothing(self, tmp_path):
        checkpoint.save(tmp_path, {"n": 1})
        os.replace(tmp_path / "checkpoint.pt", tmp_path / "checkpoint.previous.pt")
        assert checkpoint.load(tmp_path).payload["n"] == 1

    def test_nothing_to_load(self, tmp_path):
        with pytest.raises(RunDirError, match=r"holds no checkpoint\.pt: there is nothing to resume"):
            checkpoint.load(tmp_path)
        checkpoint.save(tmp_path, {"n": 1}).write_bytes(b"junk")
        with pytest.raises(RunDirError, match="is damaged"):
            checkpoint.load(tmp_path)

    def test_malicious_pickles_never_run(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path / 'owned'}",)

        (tmp_path / "checkpoint.pt").write_bytes(checkpoint.sealed({"format": 1, "x": Evil()}))
        with pytest.raises(RunDirError, match="holds more than tensors and plain values"):
            checkpoint.load(tmp_path)
        assert not (tmp_path / "owned").exists()
        torch.load(tmp_path / "checkpoint.pt", weights_only=False)  # planted: a loader that trusts the file
        assert (tmp_path / "owned").exists()

    def test_a_later_format_is_refused(self, tmp_path):
        checkpoint.save(tmp_path, {"format": checkpoint.FORMAT + 1})
        with pytest.raises(RunDirError, match="written by a later version"):
            checkpoint.load(tmp_path)

    def test_stale_temporary_files_are_swept(self, tmp_path):
        checkpoint.save(tmp_path, PAYLOAD)
        (tmp_path / "checkpoint.999.tmp").write_bytes(b"half")
        assert [p.name for p in rundir.sweep(tmp_path)] == ["checkpoint.999.tmp"]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt"]

    def test_disk_full(self, tmp_path):
        """A limit on file sizes stands in for the full disk: the write itself fails half-way."""
        checkpoint.save(tmp_path, {"n": 1})
        code = (
            "import resource, signal, sys, torch; from pathlib import Path; from pathscore.runs import checkpoint\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
            "try: checkpoint.save(Path(sys.argv[1]), {'x': torch.ones(100_000)})\n"
            "except checkpoint.RunDirError as error: print(error)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
        assert done.stdout == (
            f"cannot write {tmp_path / 'checkpoint.pt'}: File too large; the last good checkpoint is still there\n"
        ), done.stderr
        assert checkpoint.load(tmp_path).payload["n"] == 1
        assert not list(tmp_path.glob("*.tmp"))

    def test_vanished_and_read_only_directories(self, tmp_path):
        gone = tmp_path / "gone"
        with pytest.raises(RunDirError, match=r"cannot write .*No such file"):
            checkpoint.save(gone, PAYLOAD)
        with pytest.raises(RunDirError, match=r"cannot lock .*No such file"), checkpoint.lock(gone):
            pass
        if os.geteuid() == 0:
            return  # root may write anywhere
        gone.mkdir(mode=0o500)
        with pytest.raises(RunDirError, match=r"cannot write .*Permission denied"):
            checkpoint.save(gone, PAYLOAD)

    def test_one_process_cannot_own_a_directory_twice(self, tmp_path):
        second = checkpoint.lock(tmp_path)
        with checkpoint.lock(tmp_path), pytest.raises(RunDirError, match="is using"):
            second.__enter__()
        with checkpoint.lock(tmp_path):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"

    def test_a_configuration_must_be_the_same(self, tmp_path):
        checkpoint.save(tmp_path, {"config": {"latent": "normal", "layers": (4,), "steps": 5}})
        loaded = checkpoint.load(tmp_path)
        checkpoint.require_same_config(loaded, {"latent": "normal", "layers": [4], "steps": 9})
        with pytest.raises(RunDirError, match="was made with --latent normal, this run has laplace"):
            checkpoint.require_same_config(loaded, {"latent": "laplace"})


def autoguide_run() -> SVI:
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w.sum(), 1.0), obs=x)

    torch.manual_seed(0)
    return SVI(model, AutoNormal(model), OptimizerSpec(lr=0.05), Trace_ELBO(max_plate_nesting=1))


def function_run() -> SVI:
    """Plain functions: a module closed over, a constrained parameter, and one that is drawn at call 5."""
    torch.manual_seed(0)
    net, calls = nn.Linear(1, 1), [0]

    def guide(x):
        pyro.module("net", net)
        calls[0] += 1
        scale = pyro.param("scale", torch.tensor(0.3), constraint=constraints.positive)
        late = pyro.param("late", lambda: torch.randn(())) if calls[0] >= 5 or guide.resumed else 0.0
        pyro.sample("z", dist.Normal(net(x[:1]).squeeze() + late, scale))

    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample(
                "x", dist.Normal(z, pyro.param("noise", torch.tensor(1.0), constraint=constraints.positive)), obs=x
            )

    guide.resumed = False
    return SVI(model, guide, OptimizerSpec(lr=0.05, schedule="cosine", total_steps=40), Trace_ELBO(max_plate_nesting=1))


class TestState:
    @pytest.mark.parametrize("build", [autoguide_run, function_run])
    @pytest.mark.parametrize("at", [1, 7])
    def test_programs_of_every_kind_continue_bit_for_bit(self, build, at, tmp_path):
        x = torch.linspace(-1, 1, 5)
        straight = build()
        for _ in range(12):
            straight.step(x)
        first = build()
        for _ in range(at):
            first.step(x)
        torch.save({"svi": first.state_dict(), "rng": torch.get_rng_state()}, tmp_path / "s.pt")
        second = build()
        if build is function_run:
            second.guide.resumed = at >= 5
        saved = torch.load(tmp_path / "s.pt", weights_only=True)
        second.load_state_dict(saved["svi"], x)
        torch.set_rng_state(saved["rng"])
        for step in range(at, 12):
            if build is function_run and step == 4:
                second.guide.resumed = True
            second.step(x)
        assert equal(weights(second), weights(straight))

    @pytest.mark.parametrize("fault", ["none", "optimiser", "steps", "rng"])
    def test_dropping_any_part_of_the_state_is_noticed(self, fault):
        x = data().round()
        straight = make()
        for _ in range(6):
            straight.step(x)
        first = make()
        for _ in range(3):
            first.step(x)
        state, rng = first.state_dict(), torch.get_rng_state()
        if fault == "optimiser":
            state["optim"]["by_name"] = {}
        if fault == "steps":
            state["optim"]["steps"] = 0
        second = make(seed=9)
        second.load_state_dict(state)
        if fault != "rng":
            torch.set_rng_state(rng)
        for _ in range(3):
            second.step(x)
        assert equal(weights(second), weights(straight)) == (fault == "none")

    def test_every_legal_objective_and_latent_resumes(self):
        x = data().round()[:1]
        for latent in ("normal", "bernoulli", "categorical"):
            for name in legal(latent_layers(latent, (4,), 3)):
                runs = [make(latent, name, particles=ELBOS[name].min_particles) for _ in range(2)]
                torch.manual_seed(1)
                for _ in range(2):
                    runs[0].step(x)
                runs[1].load_state_dict(runs[0].state_dict())
                rng = torch.get_rng_state()
                for svi in runs:
                    torch.set_rng_state(rng)
                    svi.step(x)
                assert equal(weights(runs[0]), weights(runs[1])), (latent, name)

    def test_a_state_that_does_not_fit_is_refused_by_name_and_changes_nothing(self):
        svi = make()
        svi.step(data().round())
        good, before = svi.state_dict(), weights(svi)
        model = good["modules"]["model"]
        name = next(n for n in model if n.endswith("weight"))
        renamed = {**{n: t for n, t in model.items() if n != name}, "other.weight": model[name]}
        shaped = {**model, name: torch.zeros(2, 2)}
        missing = {n: t for n, t in model.items() if n != name}
        for bad, message in (
            (renamed, rf"model\.{name} is not in it; model\.other\.weight is not in the program"),
            (shaped, rf"model\.{name} is \(2, 2\) in it, \(.*\) in the program"),
            (missing, rf"model\.{name} is not in it"),
            ({**model, "extra": torch.zeros(1)}, r"model\.extra is not in the program"),
        ):
            with pytest.raises(UsageError, match=message):
                svi.load_state_dict({**good, "modules": {**good["modules"], "model": bad}})
            assert equal(weights(svi), before)
        other = make("categorical")
        with pytest.raises(UsageError, match="does not fit this program: "):
            other.load_state_dict(good)

    def test_renamed_and_reshaped_parameters_of_functions(self):
        x = torch.linspace(-1, 1, 5)
        svi = function_run()
        svi.step(x)
        state = svi.state_dict()
        state["params"] = {("noise2" if n == "noise" else n): p for n, p in state["params"].items()}
        with pytest.raises(UsageError, match=r"noise is not in it; .*noise2 is not in the program"):
            function_run().load_state_dict(state, x)
        state = svi.state_dict()
        state["params"]["scale"] = torch.zeros(3)
        fresh = function_run()
        fresh.load_state_dict(state)
        with pytest.raises(UsageError, match=r"saved parameter 'scale' has shape \(3,\), the program's has \(\)"):
            fresh.step(x)

    def test_a_pyro_optimiser_is_not_resumable(self):
        svi = SVI(lambda x: None, lambda x: None, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        with pytest.raises(UsageError, match="pass SVI an OptimizerSpec"):
            svi.state_dict()


def golden_payload() -> dict:
    """What tests/runs/golden/checkpoint-format-1.pt holds: three steps of `function_run`, and the next loss."""
    svi, x = function_run(), torch.linspace(-1, 1, 5)
    for _ in range(3):
        svi.step(x)
    state, rng = copy.deepcopy(svi.state_dict()), torch.get_rng_state()
    return {
        "config": {},
        "svi": state,
        "rng": {"cpu": rng},
        "position": vars(Position(step=3)),
        "next_loss": svi.step(x),
    }


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("checkpoint-format-*.pt")), ids=lambda path: path.stem)
def test_checkpoints_of_every_released_format_load(path):
    """Made by `checkpoint.save(directory, golden_payload())` when the format was new, and kept since."""
    payload = checkpoint.read(path)
    assert payload.keys() == {"format", *golden_payload()}
    svi, x = function_run(), torch.linspace(-1, 1, 5)
    svi.load_state_dict(payload["svi"], x)
    torch.set_rng_state(payload["rng"]["cpu"])
    assert Position(**payload["position"]).step == 3
    assert svi.step(x) == pytest.approx(payload["next_loss"], rel=1e-5)


def test_the_present_format_has_a_golden_checkpoint():
    assert (GOLDEN / f"checkpoint-format-{checkpoint.FORMAT}.pt").exists()
