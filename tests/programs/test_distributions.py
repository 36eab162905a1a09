"""The products of variables: torch's log-probabilities and their gradients, however their parameters were expanded."""

import pyro.distributions as dist
import pytest
import torch

from models.distributions import Bits, Normals, Pixels, once

B, D = 5, 7


def normal(raw, product):
    loc, scale = raw
    return product(dist.Normal(loc, scale.exp()), 1)


def bernoulli(raw, product):
    return product(dist.Bernoulli(logits=4 * raw.sum(0)), 1)


CASES = {"normals": (normal, Normals), "bits": (bernoulli, Bits), "pixels": (bernoulli, Pixels)}
EXPANDED = {"as made": None, "rows in front": (3, B), "one row for all": (3, 1), "states": (2, 3, B)}


def log_prob_and_gradient(make, product, batch, value):
    raw = torch.randn(2, B if batch is None or batch[-1] == B else 1, D, generator=generator(0), dtype=torch.float64)
    raw.requires_grad_()
    fn = make(raw, product)
    fn = fn if batch is None else fn.expand(batch)
    log_prob = fn.log_prob(value)
    weights = torch.randn(log_prob.shape, generator=generator(1), dtype=torch.float64)
    return log_prob.detach(), torch.autograd.grad((weights * log_prob).sum(), [raw, value])


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("batch", EXPANDED.values(), ids=EXPANDED)
@pytest.mark.parametrize("name", CASES)
def test_log_probabilities_and_gradients_are_those_of_torch(name, batch):
    make, product = CASES[name]
    uniform = torch.rand(*(batch or (B,)), D, generator=generator(2), dtype=torch.float64)
    value = (uniform < 0.5).double() if make is bernoulli else uniform
    value.requires_grad_()
    ours, slopes = log_prob_and_gradient(make, product, batch, value)
    theirs, expected = log_prob_and_gradient(make, dist.Independent, batch, value)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slopes, expected, rtol=1e-12, atol=1e-12)


def test_one_scale_for_all_variables():
    """The likelihood of real pixels: σ is a number, repeated over the last dimension too."""
    loc, scale, x = torch.randn(B, D), torch.tensor(0.3), torch.randn(B, D)
    expected = dist.Normal(loc, scale).to_event(1).log_prob(x)
    torch.testing.assert_close(Normals(dist.Normal(loc, scale), 1).log_prob(x), expected)


@pytest.mark.parametrize("name", CASES)
def test_an_expanded_product_keeps_its_kind(name):
    make, product = CASES[name]
    fn = make(torch.zeros(2, 1, D), product).expand((4, B))
    assert type(fn) is product and fn.batch_shape == (4, B) and fn.event_shape == (D,)


@pytest.mark.parametrize(
    ("dtype", "largest", "tolerance"),
    [(torch.float32, 1e4, 1e-5), (torch.float64, 1e4, 1e-13), (torch.float64, 35.0, 1e-13)],
)
def test_bits_hold_where_logits_are_large(dtype, largest, tolerance):
    """Terms are differences of φ and log(1 + e^φ): up to the threshold of softplus both must be held alike."""
    logits = torch.tensor([largest, -largest, 21.0, -21.0, 39.0, 41.0, 0.0], dtype=dtype)
    for value in (torch.zeros(D, dtype=dtype), torch.ones(D, dtype=dtype)):
        exact = dist.Bernoulli(logits=logits.double()).to_event(1).log_prob(value.double())
        ours = Bits(dist.Bernoulli(logits=logits), 1).log_prob(value)
        torch.testing.assert_close(ours.double(), exact, rtol=tolerance, atol=tolerance)


def test_values_outside_the_support_are_refused():
    for make, product in CASES.values():
        with pytest.raises(ValueError, match="within the support"):
            make(torch.zeros(2, B, D), product).log_prob(torch.full((B, D), float("nan")))


def test_repetitions_are_left_out_before_the_last_dimension():
    row, scalar = torch.randn(1, 1, D), torch.tensor(1.0)
    assert once(row.expand(3, B, D)).shape == (1, 1, D)
    assert once(scalar.expand(B, D)).shape == (1, D)  # the last dimension is summed over
    full = torch.randn(B, D)
    assert once(full) is full
    assert once(full.expand(3, B, D)).shape == (1, B, D)
