"""MNIST and its like: the sets as they should be, and every way in which a file can be damaged, refused by name."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch

from pathscore.data import DataError, check_values, idx, load_dataset


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


def test_a_file_that_cannot_be_read_is_refused_by_name(clothes, tmp_path, monkeypatch, never_asked):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    copy_of(clothes, tmp_path, "FashionMNIST")
    monkeypatch.setattr(idx.Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"Permission denied: '.*-ubyte': give --data-dir a folder that can be read"):
        load_dataset("fashion-mnist", tmp_path)


LABELS, LABELS_SHAPE = "t10k-labels-idx1-ubyte", (10_000,)


GOOD = idx_bytes(LABELS_SHAPE)


DAMAGE = {
    "is empty": b"",
    "is a web page, not data": b"\n<!DOCTYPE html><html>Sign in</html>",
    "is still compressed": gzip.compress(GOOD),
    "is not an idx file of bytes with 1 dimensions: it starts with 00 00 08 03": idx_bytes((10, 28, 28)),
    "is not an idx file of bytes with 1 dimensions: it starts with 61 62 63 64": b"abcd" * 100,
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
