"""Binarisation and order: pure functions of (seed, epoch, index)."""

import pytest
import torch

from pathscore.data import BINARIZE, binarize, check_values, epoch_order, epochs, load_dataset
from pathscore.errors import UsageError


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


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


def test_draws_that_depend_on_the_number_of_rows_are_noticed(digits):
    """The planted fault: one stream for all rows, a column at a time."""

    def columns_first(x):
        uniform = torch.rand(x.T.shape, generator=torch.Generator().manual_seed(3))
        return (x > uniform.T).float()

    assert not torch.equal(columns_first(digits.x[:7]), columns_first(digits.x)[:7])


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
