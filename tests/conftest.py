"""Fixtures of all tests: real MNIST where it is at hand, and a clean slate around every test.

`mnist_dir` is a folder in torchvision's layout: the one that PATHSCORE_DATA names, else `../shared/data` beside the
repository; a test that asks for it is skipped where neither has MNIST. `kernel` runs notebooks. `no_network` and
`never_asked` take the network away.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pyro
import pytest
import torch

from pathscore.data import network


def pytest_configure():
    """One thread of tensor work unless told otherwise: on small models barriers cost more than a core gives."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """Folder with MNIST/raw/…; skips the test where there is none."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PATHSCORE_DATA", default))
    if not (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip(f"no MNIST in {folder}: name a folder that has it in PATHSCORE_DATA")
    return folder


@pytest.fixture(scope="session")
def kernel(tmp_path_factory):
    """Name of a Jupyter kernel: the interpreter of the tests, on one thread."""
    specs = tmp_path_factory.mktemp("jupyter") / "kernels" / "pathscore-test"
    specs.mkdir(parents=True)
    (specs / "kernel.json").write_text(
        json.dumps(
            {
                "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": "tests",
                "language": "python",
                "env": {"OMP_NUM_THREADS": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"},
            }
        )
    )
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(specs.parents[1])
    yield specs.name
    if before is None:
        del os.environ["JUPYTER_PATH"]
    else:
        os.environ["JUPYTER_PATH"] = before


@pytest.fixture(autouse=True)
def fresh_start():
    """Every test starts from seed 0 and an empty parameter store, and leaves the process's globals as they were."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    before = _globals()
    yield
    changed = {
        name: (value, now)
        for (name, value), now in zip(before.items(), _globals().values(), strict=True)
        if value != now
    }
    pyro.clear_param_store()
    assert not changed, f"the test changed a global: {changed}"


@pytest.fixture
def gpu(monkeypatch):
    """An emulated GPU (support/emulated_gpu.py)."""
    from emulated_gpu import emulate

    emulate(monkeypatch)


@pytest.fixture
def float64(fresh_start):
    """Tensors made in this test are float64, unless they say otherwise."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def no_network(monkeypatch):
    """A network where nothing ever answers: connections hang past their time limit, as the lookup of a name can."""
    over = threading.Event()

    def hang(address, timeout=None):
        over.wait(60)
        raise TimeoutError

    monkeypatch.setattr(network.socket, "create_connection", hang)
    yield
    over.set()


@pytest.fixture
def never_asked(monkeypatch):
    """Fails the test as soon as anything asks for a network."""
    monkeypatch.setattr(network, "answers", lambda urls: pytest.fail(f"asked {urls}"))


def _globals() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "validation": torch.distributions.Distribution._validate_args,
        "pyro settings": pyro.settings.get(),
        "working directory": os.getcwd(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "gradients": torch.is_grad_enabled(),
    }
