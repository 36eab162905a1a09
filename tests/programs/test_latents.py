"""The latent families: standard members, features, extreme parameters, and joint states."""

import math

import pytest
import torch

from models import LATENTS
from models.latents import SCALE_FLOOR, latent_layers, positive

X, B = 9, 5


every_latent = pytest.mark.parametrize("latent", LATENTS)


@every_latent
def test_the_prior_starts_at_the_standard_member(latent):
    torch_of = {
        "normal": torch.distributions.Normal(0.0, 1.0),
        "laplace": torch.distributions.Laplace(0.0, 1.0),
        "lognormal": torch.distributions.LogNormal(0.0, 1.0),
        "bernoulli": torch.distributions.Bernoulli(0.5),
    }
    (family,) = latent_layers(latent, (4,), classes=3)
    prior = family(family.standard())
    z = prior.sample((10,))
    if latent == "categorical":
        expected = torch.full((10,), 4 * math.log(1 / 3))
    else:
        expected = torch_of[latent].log_prob(z).sum(-1)
    torch.testing.assert_close(prior.log_prob(z), expected)
    assert prior.event_shape == family.event_shape
    assert family.features(z).shape == (10, family.width)


@every_latent
def test_features_of_the_standard_member_are_centred(latent):
    """N = 40 000 × 4 draws; the standard error is below 2.2/√160 000 = .0054, so |mean| < .027 is 5 of them."""
    (family,) = latent_layers(latent, (4,), classes=3)
    z = family(family.standard()).expand((40_000,)).sample()
    assert family.features(z).mean().abs() < 0.027
    if latent in ("lognormal", "bernoulli", "categorical"):
        assert z.mean().abs() > 0.3  # the value itself is not centred, so the check above can fail


@every_latent
@pytest.mark.parametrize("size", [1e4, -1e4, 1e30, -1e30])
def test_extreme_parameters_stay_finite_in_float32(latent, size):
    (family,) = latent_layers(latent, (4,), classes=3)
    raw = torch.full((family.raw_size,), 0.0)
    raw[family.raw_size // 2 :] = size if family.reparameterised else max(-1e4, min(1e4, size))
    raw.requires_grad_()
    q, p = family(raw.expand(50, -1)), family(family.standard())
    z = q.rsample() if family.reparameterised else q.sample()
    value = (q.log_prob(z) + p.log_prob(z) + family.features(z).sum(-1)).sum()
    value.backward()
    assert value.isfinite() and raw.grad.isfinite().all()


def test_scales_lie_between_floor_and_cap_and_grow_linearly():
    raw = torch.tensor([-1e30, -100.0, 0.0, 100.0, 1e30], requires_grad=True)
    scale = positive(raw)
    scale.sum().backward()
    torch.testing.assert_close(scale, torch.tensor([SCALE_FLOOR, SCALE_FLOOR, math.log(2) + SCALE_FLOOR, 100.0, 1e6]))
    torch.testing.assert_close(raw.grad, torch.tensor([0.0, 0.0, 0.5, 1.0, 0.0]))


@pytest.mark.parametrize("latent", ["bernoulli", "categorical"])
@pytest.mark.parametrize("size", [1, 3])
def test_the_enumerated_support_is_every_state_once(latent, size):
    (family,) = latent_layers(latent, (size,), classes=3)
    q = family(torch.randn(B, family.raw_size, dtype=torch.float64))
    for expand, batch in ((True, B), (False, 1)):
        states = q.enumerate_support(expand)
        assert states.shape == (family.states, batch, *family.event_shape)
        assert len(states[:, 0].unique(dim=0)) == family.states
        torch.testing.assert_close(q.log_prob(states).exp().sum(0), torch.ones(B, dtype=torch.float64))


@every_latent
def test_only_finite_families_count_their_states(latent):
    (family,) = latent_layers(latent, (4,), classes=3)
    finite = {"bernoulli": 16, "categorical": 81}
    assert family.states == finite.get(latent)
    assert family(family.standard()).has_rsample == family.reparameterised == (latent not in finite)
