"""The data: each set as it should be, and every way in which files and values can be wrong, refused by name."""

import ast
import gzip
import hashlib
import inspect
import io
import random
import re
import struct
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from pathscore import data, epochs, idx, network, omniglot, values
from pathscore.data import BINARIZE, DATASETS, DataError, binarize, check_values, epoch_order, load_dataset, load_file
from pathscore.errors import UsageError
from pathscore.values import default_binarize
from pathscore.vision import vision

OFFLINE = "choose what works offline: --dataset digits, or --data FILE.npz"


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


def idx_bytes(shape, content=None):
    values = (
        np.random.RandomState(len(shape)).randint(0, 256, shape, np.uint8).tobytes() if content is None else content
    )
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values


@pytest.fixture(scope="session")
def clothes(tmp_path_factory):
    """A folder with Fashion-MNIST's four files, of the right form and random content."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, shape in idx.FILES.items():
        (folder / name).write_bytes(idx_bytes(shape, None if len(shape) == 3 else bytes(i % 10 for i in range(*shape))))
    return root


# The sets


def test_digits_are_split_for_good():
    digits = load_dataset("digits")
    assert (digits.kind, digits.shape) == ("unit", (1, 8, 8))
    assert digits.x.shape == (1500, 64) and digits.x_test.shape == (297, 64)
    assert digits.labels[:8].tolist() == [2, 8, 2, 6, 6, 7, 1, 9]
    assert torch.equal(digits.x * 16, (digits.x * 16).round()) and (digits.x.min(), digits.x.max()) == (0, 1)
    assert digits.labels.bincount(minlength=10).min() > 120 and digits.labels_test.bincount(minlength=10).min() > 20


def test_mnist_is_the_published_set(mnist_dir, never_asked):
    mnist = load_dataset("mnist", mnist_dir)
    assert (mnist.kind, mnist.shape) == ("unit", (1, 28, 28))
    assert mnist.x.shape == (60_000, 784) and mnist.x_test.shape == (10_000, 784)
    assert mnist.x.dtype == torch.float32 and mnist.labels.dtype == torch.int64
    assert mnist.x.mean().item() == pytest.approx(0.13066, abs=1e-5)
    assert mnist.labels[:5].tolist() == [5, 0, 4, 1, 9] and mnist.labels_test[:3].tolist() == [7, 2, 1]
    check_values(mnist, "bernoulli", "static")


def test_fashion_mnist_reads_a_folder_of_the_right_form(clothes, never_asked):
    data = load_dataset("fashion-mnist", clothes)
    assert data.x.shape == (60_000, 784) and data.x_test.shape == (10_000, 784)
    raw = np.frombuffer((clothes / "FashionMNIST/raw/t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8)
    assert torch.equal(data.x_test, torch.from_numpy(raw.reshape(-1, 784).astype(np.float32)) / 255)
    assert data.labels[:12].tolist() == [*range(10), 0, 1]


@pytest.mark.parametrize("name", DATASETS)
def test_every_entry_says_what_it_is(name):
    source = DATASETS[name]
    assert source.name == name and "\n" not in source.doc and source.kind in ("binary", "unit", "real")
    if source.offline:
        assert load_dataset(name, "/nowhere").kind == source.kind


# Missing files


@pytest.mark.parametrize(
    ("name", "where"), [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw"), ("omniglot", "omniglot-py")]
)
def test_a_missing_set_without_network_is_refused_in_two_seconds(name, where, tmp_path, no_network):
    vision()  # a second the first time, which a run spends on importing in any case
    start = time.perf_counter()
    with pytest.raises(DataError) as error:
        load_dataset(name, tmp_path)
    assert time.perf_counter() - start < 2
    assert f"--dataset {name}:" in str(error.value) and str(tmp_path / where) in str(error.value)
    assert str(error.value).endswith(OFFLINE) and "answered within" in str(error.value)


@pytest.mark.parametrize("name", [name for name, source in DATASETS.items() if not source.offline])
def test_without_leave_to_download_no_network_is_asked_for(name, tmp_path, never_asked):
    with pytest.raises(DataError, match=r"not in .*works offline"):
        load_dataset(name, tmp_path, download=False)
    assert not list(tmp_path.iterdir())


def test_a_name_that_no_server_knows_is_no_network():
    start = time.perf_counter()
    assert not network.answers(["https://nothing.invalid/", "http://nothing.invalid:81/"])
    assert time.perf_counter() - start < 2 * network.ANSWER_SECONDS


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


def test_a_file_that_cannot_be_read_is_refused_by_name(clothes, tmp_path, monkeypatch, never_asked):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    copy_of(clothes, tmp_path, "FashionMNIST")
    monkeypatch.setattr(idx.Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"Permission denied: '.*-ubyte': make --data-dir a folder that can be read"):
        load_dataset("fashion-mnist", tmp_path)


def test_a_torchvision_for_another_torch_is_told_in_one_line(monkeypatch):
    class Broken:
        def find_spec(self, name, *_):
            if name.startswith("torchvision"):
                raise RuntimeError("operator torchvision::nms does not exist\nmore")

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(DataError) as error:
        vision()
    assert str(error.value) == (
        "torchvision cannot be imported (operator torchvision::nms does not exist): "
        "install torch and torchvision together, in one command"
    )


def test_an_unknown_set_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError) as error:
        load_dataset("mnits")
    assert str(error.value) == "unknown dataset 'mnits': did you mean 'mnist'?"


# Damaged files


LABELS, LABELS_SHAPE = "t10k-labels-idx1-ubyte", (10_000,)
GOOD = idx_bytes(LABELS_SHAPE)
DAMAGE = {
    "is empty": b"",
    "is a web page, not data": b"\n<!DOCTYPE html><html>Sign in</html>",
    "is still compressed": gzip.compress(GOOD),
    "is no idx file of bytes with 1 dimensions: it starts with 00 00 08 03": idx_bytes((10, 28, 28)),
    "is no idx file of bytes with 1 dimensions: it starts with 61 62 63 64": b"abcd" * 100,
    "holds 9999 values, not 10000": idx_bytes((9_999,)),
    "has 6000 bytes, not 10008: it is truncated": GOOD[:6000],
    "holds 0 values, not 10000": GOOD[:4],
    "has 10009 bytes, not 10008: it is too long": GOOD + b"!",
}


def copy_of(root, tmp_path, cls):
    """A copy of an idx set whose large files are links."""
    folder = tmp_path / cls / "raw"
    folder.mkdir(parents=True)
    for name in idx.FILES:
        (folder / name).symlink_to(root / cls / "raw" / name)
    return folder


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_idx_file_is_refused_by_name_before_anything_is_read(what, clothes, tmp_path, never_asked):
    path = copy_of(clothes, tmp_path, "FashionMNIST") / LABELS
    path.unlink()
    path.write_bytes(DAMAGE[what])
    with pytest.raises(DataError) as error:
        load_dataset("fashion-mnist", tmp_path)
    assert str(error.value).startswith(f"{path} {what}") and str(error.value).endswith(idx.REMEDY)


@pytest.mark.parametrize("bit", [64, 12_345, 80_063])
def test_one_flipped_bit_of_mnist_is_found(mnist_dir, tmp_path, bit):
    path = copy_of(mnist_dir, tmp_path, "MNIST") / LABELS
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(DataError, match="has been altered: its sha256") as error:
        load_dataset("mnist", tmp_path)
    assert str(error.value).startswith(str(path))


def test_a_damaged_file_is_named_even_where_others_are_missing(clothes, tmp_path, no_network):
    folder = copy_of(clothes, tmp_path, "FashionMNIST")
    (folder / LABELS).unlink()
    (folder / LABELS).write_bytes(b"")
    (folder / "train-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match=f"{LABELS} is empty"):
        load_dataset("fashion-mnist", tmp_path)


@pytest.fixture
def packed_clothes(clothes, tmp_path, monkeypatch):
    """Only the four archives that torchvision downloads, with their md5 told to torchvision."""
    from torchvision.datasets import FashionMNIST

    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    resources = []
    for name in idx.FILES:
        content = gzip.compress((clothes / "FashionMNIST" / "raw" / name).read_bytes(), 0)
        (folder / f"{name}.gz").write_bytes(content)
        resources.append((f"{name}.gz", hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    return tmp_path


def test_archives_that_lie_there_are_unpacked_without_a_network(packed_clothes, never_asked):
    assert load_dataset("fashion-mnist", packed_clothes).x.shape == (60_000, 784)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x1f\x8b" + bytes(100)])
def test_a_damaged_archive_is_refused_by_name(packed_clothes, never_asked, content):
    path = packed_clothes / "FashionMNIST" / "raw" / f"{LABELS}.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged, its md5 is not that of the published file") as error:
        load_dataset("fashion-mnist", packed_clothes)
    assert str(error.value).startswith(str(path))


# Omniglot


def drawing(row):
    """105×105, white, with one black bar of five pixels' height, as a PNG."""
    from PIL import Image

    pixels = np.full((105, 105), 255, np.uint8)
    pixels[row : row + 5] = 0
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def drawings(tmp_path, monkeypatch):
    """Omniglot's two archives with two characters of two drawings, and one of one, told to torchvision and to us."""
    from torchvision.datasets import Omniglot

    folder = tmp_path / "omniglot-py"
    folder.mkdir()
    content = {"images_background": [(1, 1), (1, 2), (2, 1), (2, 2)], "images_evaluation": [(1, 1)]}
    sums, parts = {}, {}
    for part, members in content.items():
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for character, who in members:
                archive.writestr(f"{part}/Greek/character{character:02}/{who:02}.png", drawing(10 * character))
        sums[part] = hashlib.md5((folder / f"{part}.zip").read_bytes()).hexdigest()
        parts[part] = (part == "images_background", len(members), len({character for character, _ in members}))
    monkeypatch.setattr(Omniglot, "zips_md5", sums)
    monkeypatch.setattr(omniglot, "PARTS", parts)
    return tmp_path


def test_omniglot_is_unpacked_shrunk_and_inverted(drawings, never_asked):
    data = load_dataset("omniglot", drawings)
    assert data.x.shape == (4, 784) and data.x_test.shape == (1, 784) and data.shape == (1, 28, 28)
    assert sorted(data.labels.tolist()) == [0, 0, 1, 1] and data.labels_test.tolist() == [2]
    image = data.x_test[0].view(28, 28)
    # Rows 10 to 14 of 105 are rows 2⅔ to 4 of 28: a third of row 2, all of row 3, nothing of row 4.
    torch.testing.assert_close(image[:5, 0], torch.tensor([0, 0, 1 / 3, 1, 0]), atol=2 / 255, rtol=0)
    assert (image == image[:, :1]).all() and image[5:].abs().max() == 0
    assert torch.equal(load_dataset("omniglot", drawings).x, data.x)


def test_a_damaged_omniglot_archive_is_refused_by_name(drawings, never_asked):
    path = drawings / "omniglot-py" / "images_evaluation.zip"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="is damaged") as error:
        load_dataset("omniglot", drawings)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:60]), r"/Greek/character0\d/0\d.png is damaged"),
        (lambda path: path.write_bytes(b""), r"/Greek/character0\d/0\d.png is damaged"),
        (lambda path: path.unlink(), " holds 3 drawings, not 4"),
    ],
)
def test_damaged_and_missing_drawings_are_refused_by_name(drawings, never_asked, harm, message):
    load_dataset("omniglot", drawings)
    harm(next((drawings / "omniglot-py" / "images_background").rglob("*.png")))
    with pytest.raises(DataError, match=f"images_background{message}"):
        load_dataset("omniglot", drawings)


# A user's own file


def saved(tmp_path, **arrays):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.eye(20, dtype=bool), "binary"),
        (np.eye(20, dtype=np.int64), "binary"),
        (np.eye(20, dtype=np.uint8), "binary"),
        (np.eye(20) / 2, "unit"),
        (np.eye(20, dtype=np.float16) * 3, "real"),
        (-np.eye(20), "real"),
    ],
)
def test_the_kind_of_a_file_is_read_off_its_values(tmp_path, values, kind):
    data = load_file(saved(tmp_path, x=values))
    assert data.kind == kind and data.x.dtype == data.x_test.dtype == torch.float32
    assert data.name.endswith("mine.npz") and data.labels is data.labels_test is None


@pytest.mark.parametrize(("shape", "layout"), [((30, 12), (12,)), ((30, 3, 4), (1, 3, 4)), ((30, 2, 3, 2), (2, 3, 2))])
def test_pixels_are_flattened_and_their_layout_kept(tmp_path, shape, layout):
    x = np.random.RandomState(0).rand(*shape)
    data = load_file(saved(tmp_path, x=x, x_test=x[:7]))
    assert data.shape == layout and data.x.shape == (30, 12) and data.x_test.shape == (7, 12)
    torch.testing.assert_close(data.x, torch.from_numpy(x.reshape(30, 12)).float())


@pytest.mark.parametrize(("rows", "train", "test"), [(1, 1, 1), (9, 9, 9), (10, 9, 1), (30, 27, 3)])
def test_every_tenth_row_is_held_out(tmp_path, rows, train, test):
    x = np.arange(rows, dtype=np.float32)[:, None].repeat(2, 1)
    data = load_file(saved(tmp_path, x=x))
    assert (len(data.x), len(data.x_test)) == (train, test)
    if rows >= 10:
        assert data.x_test[:, 0].tolist() == list(range(9, rows, 10))
        assert sorted([*data.x[:, 0].tolist(), *data.x_test[:, 0].tolist()]) == list(range(rows))


ONES = np.ones((4, 3), np.float32)


def with_value(value):
    x = ONES.copy()
    x[2, 1] = value
    return x


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": ONES}, "has no array 'x', only y: write it with np.savez(file, x=…, x_test=…)"),
        ({}, "has no array 'x', only nothing: write it with"),
        ({"x": ONES[0]}, ": x has shape (3,): give (N, X), (N, H, W) or (N, C, H, W)"),
        ({"x": np.float32(1)}, ": x has shape (): give (N, X)"),
        ({"x": np.ones((2, 1, 1, 1, 1))}, ": x has shape (2, 1, 1, 1, 1): give (N, X)"),
        ({"x": ONES[:0]}, ": x has shape (0, 3), no values: give at least one row"),
        ({"x": ONES[:, :0]}, ": x has shape (4, 0), no values: give at least one row"),
        ({"x": ONES, "x_test": ONES[:0]}, ": x_test has shape (0, 3), no values"),
        ({"x": ONES, "x_test": ONES[:, :2]}, "x has rows of shape (3,), x_test of (2,): give both the same shape"),
        ({"x": np.array([["a"]])}, ": x holds <U1, not numbers: convert it to float32"),
        ({"x": ONES.astype(complex)}, ": x holds complex128, not numbers"),
        ({"x": np.array([["2020-01-01"]], "M8[D]")}, ": x holds datetime64[D], not numbers"),
        ({"x": np.array([[None]], object)}, "cannot be read (Object arrays cannot be loaded"),
        ({"x": (ONES * 255).astype(np.uint8)}, ": x holds integers from 255 to 255: divide pixels by 255"),
        ({"x": -ONES.astype(np.int64)}, ": x holds integers from -1 to -1: divide pixels by 255, or convert"),
        ({"x": with_value(np.nan)}, ": x has the value nan at row 2, column 1: remove or fill such rows"),
        ({"x": with_value(-np.inf)}, ": x has the value -inf at row 2, column 1"),
        ({"x": ONES.astype(float) * 1e300}, ": x has the value inf at row 0, column 0"),
        ({"x": ONES, "x_test": with_value(np.nan)}, ": x_test has the value nan at row 2, column 1"),
    ],
)
def test_a_file_with_wrong_arrays_is_refused_by_name(tmp_path, arrays, message):
    path = saved(tmp_path, **arrays)
    with pytest.raises(DataError) as error:
        load_file(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04", b"\x80\x04N."])
def test_what_is_no_archive_is_refused_by_name(tmp_path, content):
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is no \.npz archive, or a truncated one"):
        load_file(path)


def test_no_file_one_array_and_folders_are_refused_by_name(tmp_path):
    np.save(tmp_path / "one.npy", ONES)
    with pytest.raises(DataError, match=r"is no \.npz archive"):
        load_file(tmp_path / "one.npy")
    for path in (tmp_path, tmp_path / "none.npz"):
        with pytest.raises(DataError, match=r"--data .*: there is no such file"):
            load_file(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_archives_are_refused_or_read_but_never_crash(tmp_path, save):
    """300 archives with one to three flipped bits, some cut short; some flips fall on bytes that say nothing."""
    path, chance, refused = tmp_path / "mine.npz", random.Random(0), 0
    save(path, x=np.random.RandomState(0).rand(6, 5), x_test=ONES[:, :1].repeat(5, 1))
    intact = path.read_bytes()
    for _ in range(300):
        content = bytearray(intact)
        for _ in range(chance.choice((1, 1, 3))):
            bit = chance.randrange(8 * len(content))
            content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content[: chance.randrange(len(content))] if chance.random() < 0.2 else content)
        try:
            load_file(path)
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 150


# Values and likelihoods


BINARY = torch.eye(6)
GREY = BINARY / 2


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def test_what_fits_is_accepted(digits):
    for mode in ("static", "dynamic", "threshold"):
        check_values(digits, "bernoulli", mode)
    check_values(digits, "normal", "none")
    check_values(replace(digits, x=digits.x.round(), x_test=digits.x_test.round()), "bernoulli", "none")
    check_values(replace(digits, x=digits.x * -30, x_test=digits.x_test.double()), "normal", "none")


NEGATIVE = (-0.25, "they run from -0.25 to 1, scale them or choose --likelihood normal with --binarize none")
BYTES = (255.0, "they look like integers from 0 to 255, divide them by 255")


@pytest.mark.parametrize("array", ["x", "x_test"])
@pytest.mark.parametrize(
    ("value", "likelihood", "binarize", "message"),
    [
        (float("nan"), "normal", "none", "has the value nan at row 5, column 3: remove or fill such rows"),
        (float("inf"), "normal", "none", "has the value inf at row 5, column 3: remove or fill such rows"),
        (float("nan"), "bernoulli", "static", "has the value nan"),
        (NEGATIVE[0], "bernoulli", "none", f"--likelihood bernoulli needs values in [0, 1]: {NEGATIVE[1]}"),
        (NEGATIVE[0], "bernoulli", "static", f"--binarize static needs values in [0, 1]: {NEGATIVE[1]}"),
        (NEGATIVE[0], "normal", "dynamic", f"--binarize dynamic needs values in [0, 1]: {NEGATIVE[1]}"),
        (BYTES[0], "bernoulli", "none", f"--likelihood bernoulli needs values in [0, 1]: {BYTES[1]}"),
        (BYTES[0], "bernoulli", "threshold", f"--binarize threshold needs values in [0, 1]: {BYTES[1]}"),
        (
            0.5,
            "bernoulli",
            "none",
            "has the value 0.5 at row 5, column 3: --likelihood bernoulli needs zeros and ones: "
            "choose --binarize static, dynamic or threshold, or --likelihood normal",
        ),
    ],
)
def test_values_without_a_density_are_refused_by_name(digits, array, value, likelihood, binarize, message):
    wrong = replace(digits, x=digits.x.round(), x_test=digits.x_test.round())
    getattr(wrong, array)[5, 3] = value
    with pytest.raises(DataError) as error:
        check_values(wrong, likelihood, binarize)
    assert str(error.value).startswith(f"digits: {array} has the value") and message in str(error.value)


def test_a_value_far_down_is_found_at_its_place(digits):
    x = torch.zeros(10_000, 64)
    x[9_999, 63] = 0.5
    with pytest.raises(DataError, match="at row 9999, column 63"):
        check_values(replace(digits, x=x), "bernoulli", "none")


@pytest.mark.parametrize("array", ["x", "x_test"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x[0], "has shape (64,), not (rows, values): flatten each datum"),
        (lambda x: x.view(-1, 8, 8), "8, 8), not (rows, values): flatten each datum"),
        (lambda x: x[:0], "is empty, 0 rows of 64 values: give at least one row"),
        (lambda x: (x * 255).byte(), "is torch.uint8, not float: convert it with x.float()"),
        (lambda x: x.numpy(), "is float32, not float: convert it with x.float()"),
        (lambda x: None, "is NoneType, not float"),
    ],
)
def test_a_wrong_layout_is_refused_by_name(digits, array, make, message):
    with pytest.raises(DataError) as error:
        check_values(replace(digits, **{array: make(getattr(digits, array))}), "normal", "none")
    assert str(error.value).startswith(f"digits: {array} ") and message in str(error.value)


def test_widths_that_differ_are_refused_by_name(digits):
    with pytest.raises(DataError, match="x has 64 values a row, x_test 63: give both the same width"):
        check_values(replace(digits, x_test=digits.x_test[:, 1:]), "normal", "none")
    with pytest.raises(DataError, match=r"shape \(1, 8, 9\) does not hold the 64 values"):
        check_values(replace(digits, shape=(1, 8, 9)), "normal", "none")


def test_no_check_is_an_assertion_that_could_be_switched_off():
    for module in (data, epochs, idx, network, omniglot, values):
        assert not [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Assert)]


@pytest.mark.proof  # half a minute where nothing is compiled for -O yet
def test_values_are_refused_with_assertions_off_too():
    program = (
        "from pathscore.data import load_dataset, check_values\n"
        "try: check_values(load_dataset('digits'), 'bernoulli', 'none')\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-O", "-c", program], capture_output=True, text=True, check=True)
    assert "--likelihood bernoulli needs zeros and ones" in done.stdout


@pytest.mark.parametrize(
    ("kind", "likelihood", "mode"),
    [
        ("unit", "bernoulli", "static"),
        ("binary", "bernoulli", "none"),
        ("unit", "normal", "none"),
        ("real", "normal", "none"),
    ],
)
def test_what_data_call_for_by_default(kind, likelihood, mode):
    assert default_binarize(kind, likelihood) == mode


# Binarisation and order


def test_static_is_one_draw_and_dynamic_one_per_epoch(digits):
    static = [binarize(digits.x, "static", 1, epoch) for epoch in (0, 1)]
    dynamic = [binarize(digits.x, "dynamic", 1, epoch) for epoch in (0, 1, 0)]
    assert torch.equal(*static)
    assert torch.equal(dynamic[0], dynamic[2]) and not torch.equal(dynamic[0], dynamic[1])
    assert not torch.equal(static[0], binarize(digits.x, "static", 2, 0))
    assert not torch.equal(binarize(digits.x, "dynamic", 1, 2), binarize(digits.x, "dynamic", 2, 1))


@pytest.mark.parametrize("mode", BINARIZE)
@pytest.mark.parametrize("rows", [1, 7, 64, 1500])
def test_a_row_depends_on_its_index_alone(digits, mode, rows, monkeypatch):
    whole = binarize(digits.x, mode, 3, 4)
    assert torch.equal(binarize(digits.x[:rows], mode, 3, 4), whole[:rows])
    monkeypatch.setattr(epochs, "CHUNK_ROWS", rows)
    torch.rand(5)  # what the process drew before is of no matter
    assert torch.equal(binarize(digits.x, mode, 3, 4), whole)


@pytest.mark.parametrize("mode", BINARIZE)
def test_binarised_values_are_zeros_and_ones_and_those_stay_put(digits, mode):
    b = binarize(digits.x, mode)
    assert b.shape == digits.x.shape and b.dtype == digits.x.dtype
    assert mode == "none" or set(b.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(binarize(b.round(), mode), b.round())
    fixed = (digits.x == 0) | (digits.x == 1)
    assert torch.equal(b[fixed], digits.x[fixed])
    assert torch.equal(binarize(digits.x.double(), mode), b.double())


def test_threshold_and_none_draw_nothing(digits):
    assert torch.equal(binarize(digits.x, "threshold"), (digits.x > 0.5).float())
    assert binarize(digits.x, "none") is digits.x


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
def test_pixels_are_lit_with_their_probability(p):
    """N = 10⁶ draws: |z| ≤ 4, false alarms 6e-5, finds a bias of .0027 nine times in ten; .005 is planted."""
    x = torch.full((10_000, 100), p)
    error = (p * (1 - p) / 1e6) ** 0.5

    def z(b):
        return abs(b.double().mean().item() - p) / error

    assert z(binarize(x, "dynamic", 5, 6)) <= 4
    assert z(binarize(x + 0.005, "dynamic", 5, 6)) > 4
    # Neighbouring pixels and rows are independent: the mean product is p² within 4 standard errors.
    b = binarize(x, "dynamic", 5, 6) - p
    for product in (b[:, 1:] * b[:, :-1], b[1:] * b[:-1]):
        assert abs(product.mean().item()) <= 4 * p * (1 - p) / product.numel() ** 0.5


def test_an_epochs_order_is_a_permutation_of_its_own():
    order = epoch_order(1000, 1, 2)
    assert order.dtype == torch.int64 and torch.equal(order.sort().values, torch.arange(1000))
    state = torch.get_rng_state()
    assert torch.equal(order, epoch_order(1000, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    for other in ((1, 3), (2, 2), (2, 1)):
        assert not torch.equal(order, epoch_order(1000, *other))
    assert epoch_order(1, 0, 0).tolist() == [0]


def test_an_unknown_binarisation_is_refused_with_the_nearest_name(digits):
    for call in (lambda: binarize(digits.x, "statik"), lambda: check_values(digits, "bernoulli", "statik")):
        with pytest.raises(UsageError) as error:
            call()
        assert str(error.value) == "unknown binarize 'statik': did you mean 'static'?"
