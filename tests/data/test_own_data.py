"""A user's own file: what is read from it, and everything that is refused by name."""

import random

import numpy as np
import pytest
import torch

from pathscore.data import DataError, load_file


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
    with pytest.raises(DataError, match=r"is not an \.npz archive, or it is truncated"):
        load_file(path)


def test_no_file_one_array_and_folders_are_refused_by_name(tmp_path):
    np.save(tmp_path / "one.npy", ONES)
    with pytest.raises(DataError, match=r"is not an \.npz archive"):
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
