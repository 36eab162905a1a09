"""The main job as a user runs it: what it leaves and prints, where it can run, how it is stopped and taken up again."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pathscore.command import cli
from pathscore.config import Config, options_of
from pathscore.runs import checkpoint, job
from pathscore.runs.rundir import read_config

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--hidden", "8", "--layers", "4", "--eval-samples", "5"]
FILES = {
    *("config.json", "metrics.jsonl", "checkpoint.pt", "summary.json"),
    *("training.png", "reconstructions.png", "samples.png"),
}
KEYS = {
    *("elbo", "latent", "estimator", "dataset", "seed", "steps", "epochs", "parameters", "train_seconds"),
    *("steps_per_second", "train_elbo", "test_elbo", "test_elbo_se", "test_log_likelihood"),
    *("test_log_likelihood_samples", "active_units"),
}


def train(*words: str) -> int:
    return cli.main(["train", *TINY, *words])


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), *TINY, *words]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a run's last checkpoint, by path."""
    found = {}

    def walk(path, value):
        if isinstance(value, torch.Tensor):
            found[path] = value
        elif isinstance(value, dict):
            for key, member in value.items():
                walk(f"{path}.{key}", member)

    walk("", checkpoint.load(directory).payload)
    return found


def test_a_run_leaves_and_prints_what_is_promised(tmp_path, capsys):
    assert train("--epochs", "2", "--out", str(tmp_path / "run")) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} >= FILES
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary.keys() >= KEYS
    assert (summary["steps"], summary["epochs"], summary["dataset"]) == (48, 2, "digits")
    config = read_config(tmp_path / "run")
    assert (config.batch_size, config.binarize, config.threads, config.particles) == (64, "static", 1, 1)
    printed = capsys.readouterr().out.splitlines()
    assert f"{summary['test_elbo']:.2f} ± {summary['test_elbo_se']:.2f} nats" in printed[-9]
    assert str(tmp_path / "run") in printed[-2] and "samples.png" in printed[-1]


def test_quiet_prints_the_result_only(tmp_path, capsys):
    assert train("--steps", "3", "--quiet", "--out", str(tmp_path / "run")) == 0
    out, err = capsys.readouterr()
    assert out.startswith("  test ELBO") and err.count("\n") == 1 and "no success" in err  # after three steps


@pytest.fixture
def weights_only(monkeypatch):
    """For tests that look at weights: no pictures and no table of gradients, which take longer than the training."""
    monkeypatch.setattr(job, "save_pictures", lambda *args, **kwargs: [])
    monkeypatch.setattr(job, "finish", lambda *args, **kwargs: "")


@pytest.mark.usefixtures("weights_only")
def test_the_same_seed_gives_the_same_run_and_another_another(tmp_path):
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert train("--steps", "5", "--seed", seed, "--out", str(tmp_path / name)) == 0
    a, b, c = (weights(tmp_path / name) for name in "abc")
    tensors = [name for name in a if name.startswith(".svi.modules.")]
    assert tensors and all(torch.equal(a[name], b[name]) for name in tensors)
    assert not all(torch.equal(a[name], c[name]) for name in tensors)


def test_a_run_leaves_the_random_stream_as_it_was(tmp_path):
    before = torch.get_rng_state()
    assert train("--steps", "3", "--out", str(tmp_path / "run")) == 0
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.usefixtures("weights_only")
def test_a_longer_run_is_a_shorter_one_resumed(tmp_path):
    assert train("--epochs", "3", "--out", str(tmp_path / "whole")) == 0
    assert train("--epochs", "1", "--out", str(tmp_path / "parts")) == 0
    assert cli.main(["train", "--resume", str(tmp_path / "parts"), "--epochs", "3"]) == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert json.loads((tmp_path / "parts" / "summary.json").read_text())["steps"] == 72


@pytest.mark.usefixtures("weights_only")
def test_another_schedule_is_another_run(tmp_path, capsys):
    assert train("--epochs", "1", "--schedule", "cosine", "--out", str(tmp_path / "run")) == 0
    assert cli.main(["train", "--resume", str(tmp_path / "run"), "--epochs", "2"]) == 2
    assert "--epochs 2 contradicts the run, which has 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.proof)]
)
def test_a_signal_saves_says_how_to_go_on_and_resume_gives_the_same_weights(number, code, tmp_path):
    latent = ["--latent", "bernoulli", "--epochs", "16"]
    stopped = subprocess.Popen(
        command(*latent, "--out", "stopped"), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "stopped" / "metrics.jsonl"
    while stopped.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.02)
    stopped.send_signal(number)
    _, err = stopped.communicate(timeout=600)
    assert stopped.returncode == code, err
    assert err.count("\n") == 1 and "--resume stopped" in err
    assert subprocess.run(command(*latent, "--resume", "stopped"), cwd=tmp_path, timeout=600).returncode == 0
    assert train(*latent, "--threads", "1", "--out", str(tmp_path / "whole")) == 0
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.usefixtures("weights_only")
def test_a_run_that_was_stopped_before_its_first_checkpoint_starts_over(tmp_path):
    assert train("--steps", "4", "--out", str(tmp_path / "run")) == 0
    done = weights(tmp_path / "run")
    for name in ("checkpoint.pt", "summary.json"):
        (tmp_path / "run" / name).unlink()
    assert cli.main(["train", "--resume", str(tmp_path / "run")]) == 0
    again = weights(tmp_path / "run")
    assert all(torch.equal(done[name], again[name]) for name in done)


@pytest.mark.usefixtures("weights_only")
def test_two_processes_never_share_a_run_directory(tmp_path, capsys):
    assert train("--steps", "2", "--out", str(tmp_path / "run")) == 0
    with checkpoint.lock(tmp_path / "run"):
        assert cli.main(["train", "--resume", str(tmp_path / "run")]) == 3
    assert f"process {os.getpid()} is using" in capsys.readouterr().err
    assert train("--steps", "2", "--out", str(tmp_path / "run")) == 3


# Without assertions every library is compiled anew, which takes longer than the run: a proof.
@pytest.mark.parametrize("optimised", [[], pytest.param(["-O"], marks=pytest.mark.proof)])
def test_it_runs_anywhere_with_warnings_as_errors_and_without_assertions(optimised, tmp_path):
    here = tmp_path / "räume und mehr"
    here.mkdir()
    flags = ["-W", "error", "-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning"]
    words = [sys.executable, *optimised, *flags, *command("--steps", "3")[1:]]
    done = subprocess.run(words, cwd=here, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (run,) = (here / "runs").iterdir()
    assert run.name.endswith("-digits-normal-trace") and {path.name for path in run.iterdir()} >= FILES


@pytest.mark.usefixtures("weights_only")
def test_own_data_with_a_split_and_without(tmp_path, capsys):
    import numpy as np

    x = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
    np.savez(tmp_path / "own.npz", x=x)
    words = ["--data", str(tmp_path / "own.npz"), "--steps", "3"]
    assert train(*words, "--likelihood", "normal", "--out", str(tmp_path / "run")) == 0
    assert train(*words, "--out", str(tmp_path / "other")) == 2
    assert "--likelihood" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("preset", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_every_preset_is_a_configuration(preset):
    config = Config.from_toml(preset)
    assert any(getattr(config, name) != item.default for name, item in options_of(type(config)).items())


@pytest.mark.proof
def test_the_main_job_learns_the_digits_within_a_minute(tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, str(ROOT / "run.py"), "--elbo", "tracegraph", "--out", str(tmp_path / "run")]
    assert subprocess.run(words, timeout=600).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the processor: on an idle machine, and with the one thread that small models get, the time that passes.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["test_elbo"] > -24.6


@pytest.mark.proof
def test_two_epochs_of_mnist_reach_135_nats(mnist_dir, tmp_path):
    words = ["train", "--elbo", "trace", "--dataset", "mnist", "--data-dir", str(mnist_dir), "--epochs", "2"]
    assert cli.main([*words, "--eval-samples", "1", "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test_elbo"] >= -135
    assert read_config(tmp_path / "run").layers == (50,)
