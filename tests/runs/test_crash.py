"""kill -9 at random moments, then resume: the same weights, bit for bit, as a run that nothing disturbed.

Reliability 26 to 29, 37. The kills come at random steps and at random moments inside a step or a save. Default tests
kill once per latent family; `pytest -m proof` kills a run ten times and a saving loop fifty times.
"""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training_runs import equal, make_loop, weights

from pathscore.errors import RunDirError
from pathscore.runs import checkpoint
from pathscore.runs.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[2]
STEPS = 60
SCRIPT = ROOT / "tests" / "support" / "training_runs.py"


def start(directory: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), str(directory), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def finish(process: subprocess.Popen, directory: Path) -> dict[str, torch.Tensor]:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return torch.load(directory / "final.pt", weights_only=True)


def kill_after(process: subprocess.Popen, saves: int, delay: float) -> int:
    """Kill -9 some moment after the given number of acknowledged saves; the step of the last acknowledged one."""
    acknowledged = 0
    for line in process.stdout:
        if line.startswith("saved"):
            acknowledged, saves = int(line.split()[1]), saves - 1
        if saves <= 0:
            break
    time.sleep(delay)
    process.kill()
    rest, _ = process.communicate()
    return max([acknowledged, *(int(line.split()[1]) for line in rest.splitlines() if line.startswith("saved"))])


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Until the process has written something into the file, or has ended."""
    while process.poll() is None and not (path.exists() and path.stat().st_size):
        time.sleep(0.02)


def words(latent: str) -> tuple[str, ...]:
    return ("--latent", latent, "--steps", str(STEPS))


def kill_often(directory: Path, latent: str, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(kills):
        process = start(directory, *words(latent), *(["--resume"] if number else []))
        last = kill_after(process, rng.randint(1, max(2, STEPS // kills)), rng.uniform(0, 0.02))
        assert checkpoint.load(directory).payload["position"]["step"] >= last, "an acknowledged save is lost"


def undisturbed(directory: Path, latent: str) -> dict[str, torch.Tensor]:
    """The same run in this process, on its own."""
    directory.mkdir()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    loop = make_loop(directory, latent, STEPS, every=1)
    loop.run()
    torch.set_num_threads(threads)
    return weights(loop.svi)


def metrics_of(directory: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_metrics(directory / "metrics.jsonl")]


def kill_and_resume(tmp_path: Path, latents: list[str], kills: int) -> None:
    directories = [tmp_path / latent for latent in latents]
    for directory, latent in zip(directories, latents, strict=True):
        directory.mkdir()
        kill_often(directory, latent, kills, seed=len(latent))
        (directory / "checkpoint.1.tmp").write_bytes(b"stale")
    resumed = [start(d, *words(latent), "--resume") for d, latent in zip(directories, latents, strict=True)]
    for process, directory, latent in zip(resumed, directories, latents, strict=True):
        reference = tmp_path / f"{latent}-undisturbed"
        assert equal(undisturbed(reference, latent), finish(process, directory))
        assert metrics_of(directory) == metrics_of(reference)
        assert not list(directory.glob("*.tmp"))


def test_kill_once_and_resume(tmp_path):
    kill_and_resume(tmp_path, ["normal", "bernoulli"], kills=1)


@pytest.mark.proof
@pytest.mark.parametrize("latent", ["normal", "laplace", "lognormal", "bernoulli", "categorical"])
def test_kill_ten_times_and_resume(tmp_path, latent):
    kill_and_resume(tmp_path, [latent], kills=10)


@pytest.mark.proof
def test_fifty_kills_of_a_saving_loop(tmp_path):
    """0 unreadable, 0 acknowledged saves lost; the planted fault, a plain `torch.save`, leaves unreadable files."""
    unreadable = {True: 0, False: 0}
    rng = random.Random(8)
    for atomic in (True, False):
        for number in range(50):
            directory = tmp_path / f"{atomic}{number}"
            directory.mkdir()
            save = "checkpoint.save(d, p)" if atomic else "torch.save(p, d / 'checkpoint.pt')"
            code = (
                "import sys, torch; from pathlib import Path; from pathscore.runs import checkpoint\n"
                "d = Path(sys.argv[1]); n = 0\nwhile True:\n"
                f"    n += 1; p = {{'n': n, 'x': torch.ones(300_000)}}; {save}; print('saved', n, flush=True)"
            )
            process = subprocess.Popen(
                [sys.executable, "-c", code, str(directory)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            last = kill_after(process, rng.randint(1, 4), rng.uniform(0, 0.01))
            try:
                payload = checkpoint.load(directory).payload if atomic else torch.load(directory / "checkpoint.pt")
            except Exception:
                unreadable[atomic] += 1
            else:
                assert payload["n"] >= last
    assert unreadable[True] == 0
    assert unreadable[False] >= 5


def test_signals_save_and_say_how_to_go_on_and_a_lock_dies_with_its_owner(tmp_path):
    endless, signals = ("--steps", "100000", "--every", "100000"), {signal.SIGINT: 130, signal.SIGTERM: 143}
    processes = {}
    for number in signals:
        (tmp_path / number.name).mkdir()
        processes[number] = start(tmp_path / number.name, *endless)
    for number, process in processes.items():
        directory = tmp_path / number.name
        assert process.stdout.readline() == "ready\n"
        began = time.process_time()  # of the processor: neither refused nor waited for on a busy machine
        with pytest.raises(RunDirError, match=f"process {process.pid} is using"), checkpoint.lock(directory):
            pass
        assert time.process_time() - began < 1
        wait_for(directory / "metrics.jsonl", process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == signals[number]
        step = checkpoint.load(directory).payload["position"]["step"]
        assert errors == f"stopped by {number.name} after step {step}: continue with --resume {directory}\n"
        with checkpoint.lock(directory):
            assert (directory / "lock").read_text().strip().isdigit()
