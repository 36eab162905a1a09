"""The networks between layers: their shapes, and where they start."""

import math

import pytest
import torch
from pyro import poutine

from models import ACTIVATIONS, LIKELIHOODS, TRUNKS, VAE

X, B = 9, 5


IMAGE = (1, 3, 3)


def trace_of(model, *args, **kwargs):
    trace = poutine.trace(model).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    return trace


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_decoder_starts_at_the_mean_of_the_data(likelihood, trunk):
    x_mean = torch.linspace(0.1, 0.9, X)
    model = VAE(X, likelihood=likelihood, trunk=trunk, hidden=(4,), shape=IMAGE, x_mean=x_mean, activation="relu")
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            if name.endswith("weight"):
                parameter.zero_()
            elif parameter.shape != (X,):
                assert trunk == "conv" or (parameter == 0).all()
                parameter.zero_()
    torch.testing.assert_close(model.decode(torch.randn(B, 16)), x_mean.expand(B, X))


def test_the_decoder_mirrors_the_widths_of_the_encoder():
    trunk = TRUNKS["mlp"]((X,), (7, 4))
    networks = trunk.encoder(torch.zeros(2)), trunk.between(3, torch.zeros(2)), trunk.decoder(2, torch.zeros(X))
    widths = [[(m.in_features, m.out_features) for m in net.modules() if hasattr(m, "in_features")] for net in networks]
    assert widths == [[(X, 7), (7, 4), (4, 2)], [(3, 7), (7, 4), (4, 2)], [(2, 4), (4, 7), (7, X)]]


@pytest.mark.parametrize("side", [1, 3, 7, 8, 28])
@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_come_back_to_the_image_they_started_from(side, channels):
    shape = (channels, side, side + 1)
    trunk = TRUNKS["conv"](shape, (2, 3))
    bias = torch.randn(math.prod(shape))
    x = torch.rand(2, B, len(bias))
    code = trunk.encoder(torch.zeros(4))(x)
    assert code.shape == (2, B, 4)
    assert trunk.decoder(4, bias)(code).shape == x.shape


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_builds(activation):
    assert trace_of(VAE(X, activation=activation), size=B).log_prob_sum().isfinite()
