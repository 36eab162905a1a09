"""Sets that are not there: refused quickly where nothing answers, and where a download breaks off."""

import re
import sys
import time

import pytest

from pathscore.data import DATASETS, DataError, load_dataset, network
from pathscore.data.vision import vision

OFFLINE = "choose one that works offline: --dataset digits, breast-cancer, or --data FILE.npz"


def quickest(refused, kind: type[Exception], tries: int = 5) -> tuple[str, float]:
    """The message of a refusal, and the shortest time it took: what a busy machine adds is not counted."""
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        with pytest.raises(kind) as error:
            refused()
        times.append(time.perf_counter() - start)
        if times[-1] < 1:
            break
    return str(error.value), min(times)


@pytest.mark.parametrize(
    ("name", "where"), [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw"), ("omniglot", "omniglot-py")]
)
def test_a_missing_set_without_network_is_refused_in_two_seconds(name, where, tmp_path, no_network):
    vision()  # a second the first time, which a run spends on importing in any case
    error, taken = quickest(lambda: load_dataset(name, tmp_path), DataError)
    assert taken < 2
    assert f"--dataset {name}:" in error and str(tmp_path / where) in error
    assert error.endswith(OFFLINE) and "answered within" in error


@pytest.mark.parametrize("name", [name for name, source in DATASETS.items() if not source.offline])
def test_without_leave_to_download_no_network_is_asked_for(name, tmp_path, never_asked):
    with pytest.raises(DataError, match=r"not in .*works offline"):
        load_dataset(name, tmp_path, download=False)
    assert not list(tmp_path.iterdir())


def test_a_name_that_no_server_knows_is_no_network():
    def asked():
        if not network.answers(["https://nothing.invalid/", "http://nothing.invalid:81/"]):
            raise OSError

    assert quickest(asked, OSError)[1] < 2 * network.ANSWER_SECONDS


def test_one_answering_server_is_a_network(monkeypatch):
    with network.socket.create_server(("127.0.0.1", 0)) as server:
        here = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert network.answers(["https://nothing.invalid/", here])
        monkeypatch.setenv("https_proxy", here)
        assert network.answers(["https://nothing.invalid/"])


def test_a_download_that_breaks_off_is_refused_and_the_time_limit_is_put_back(tmp_path, monkeypatch):
    import torchvision.datasets.utils as torchvision_utils

    limits = []

    def break_off(url, filename, **_):
        limits.append(network.socket.getdefaulttimeout())
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(network, "answers", lambda urls: True)
    monkeypatch.setattr(torchvision_utils, "_get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr(torchvision_utils, "_urlretrieve", break_off)
    for name in ("mnist", "omniglot"):
        with pytest.raises(DataError, match=r"the download broke off \(.*reset by peer"):
            load_dataset(name, tmp_path)
    assert set(limits) == {network.STALL_SECONDS} and network.socket.getdefaulttimeout() is None


def test_a_folder_that_is_relative_is_named_in_full(tmp_path, monkeypatch, never_asked):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=re.escape(f"not in {tmp_path}/sets/MNIST/raw")):
        load_dataset("mnist", "sets", download=False)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            RuntimeError("operator torchvision::nms does not exist\nmore"),
            "torchvision cannot be imported (operator torchvision::nms does not exist): "
            "install torch and torchvision together, in one command",
        ),
        (
            ModuleNotFoundError("No module named 'torchvision'", name="torchvision"),
            "this data set is read with torchvision: pip install torchvision",
        ),
    ],
)
def test_a_torchvision_that_is_missing_or_for_another_torch_is_told_in_one_line(fault, said, monkeypatch):
    class Broken:
        def find_spec(self, name, *_):
            if name.startswith("torchvision"):
                raise fault

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(DataError) as error:
        vision()
    assert str(error.value) == said
