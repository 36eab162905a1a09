"""The table of data sets, and values without a density, refused by name before training."""

import ast
import inspect
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from pathscore import data
from pathscore.data import DATASETS, DataError, check_values, epochs, idx, load_dataset, network, omniglot, values
from pathscore.data.values import default_binarize
from pathscore.errors import UsageError


def test_digits_are_split_for_good():
    digits = load_dataset("digits")
    assert (digits.kind, digits.shape) == ("unit", (1, 8, 8))
    assert digits.x.shape == (1500, 64) and digits.x_test.shape == (297, 64)
    assert digits.labels[:8].tolist() == [2, 8, 2, 6, 6, 7, 1, 9]
    assert torch.equal(digits.x * 16, (digits.x * 16).round()) and (digits.x.min(), digits.x.max()) == (0, 1)
    assert digits.labels.bincount(minlength=10).min() > 120 and digits.labels_test.bincount(minlength=10).min() > 20


@pytest.mark.parametrize("name", DATASETS)
def test_every_entry_says_what_it_is(name):
    source = DATASETS[name]
    assert source.name == name and "\n" not in source.doc and source.kind in ("binary", "unit", "real")
    if source.offline:
        assert load_dataset(name, "/nowhere").kind == source.kind


def test_an_unknown_set_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError) as error:
        load_dataset("mnits")
    assert str(error.value) == "unknown dataset 'mnits': did you mean 'mnist'?"


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def test_what_fits_is_accepted(digits):
    for mode in ("static", "dynamic", "threshold"):
        check_values(digits, "bernoulli", mode)
    check_values(digits, "normal", "none")
    check_values(replace(digits, x=digits.x.round(), x_test=digits.x_test.round()), "bernoulli", "none")
    check_values(replace(digits, x=digits.x * -30, x_test=digits.x_test.double()), "normal", "none")


NEGATIVE = (-0.25, "they range from -0.25 to 1, scale them or choose --likelihood normal with --binarize none")


BYTES = (255.0, "they look like pixels from 0 to 255, divide them by 255")


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
        (lambda x: x[0], "has shape (64,), not (rows, values): flatten each data point"),
        (lambda x: x.view(-1, 8, 8), "8, 8), not (rows, values): flatten each data point"),
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
    with pytest.raises(DataError, match="x has 64 values per row, x_test 63: give both the same width"):
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
