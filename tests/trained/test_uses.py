"""What is done with a trained pair, against exact sums over the states of a small program, and in every form."""

import numpy as np
import pandas
import pyro
import pytest
import torch
import xarray
from pyro import distributions as dist
from pyro.infer.autoguide import AutoNormal

from guides import AmortizedGuide, FactorisedGuide
from models import VAE
from pathscore.errors import UsageError
from pathscore.evaluation import exact_log_likelihood
from pathscore.svi import SVI
from pathscore.trained import encoding, generating
from pathscore.trained.trained import Trained

WIDTH, LIMIT = 6, 4.5


def pair(latent="bernoulli", layers=(3,), guide=AmortizedGuide):
    torch.manual_seed(1)
    sizes = {"data_size": WIDTH, "layers": layers, "hidden": (), "trunk": "linear", "latent": latent, "classes": 3}
    made = VAE(**sizes), guide(**sizes)
    with torch.no_grad():
        for part in made:
            for parameter in part.parameters():
                parameter.copy_(torch.randn(parameter.shape))
    return made


def trained(*args, **kwargs) -> Trained:
    x = torch.bernoulli(torch.full((5, WIDTH), 0.5), generator=torch.Generator().manual_seed(2))
    return Trained(SVI(*pair(*args, **kwargs), publish=False), (x,))


@pytest.mark.parametrize(("latent", "names"), [("normal", {"z1.mean", "z1.scale"}), ("categorical", {"z1.probs"})])
def test_one_layer_is_encoded_exactly(latent, names):
    found = trained(latent)
    (x,) = found.example
    law = found.guide.encode(x)["z1"]
    codes = found.encode(x)
    assert set(codes) == names
    assert torch.equal(codes.get("z1.mean", codes.get("z1.probs")), law.mean)
    if "z1.scale" in codes:
        assert torch.allclose(codes["z1.scale"], law.variance.sqrt(), atol=1e-6)


def second_layer(draws: int) -> torch.Tensor:
    """z of E_q[z2] against Σ_z1 q(z1 | x) q(z2 | z1), (5, 2). The bound on the standard error is ½/√draws."""
    found = trained(layers=(3, 2))
    guide = found.guide
    (x,) = found.example
    first = guide.latents[0](guide.networks[0](x - guide.x_mean))
    states = first.enumerate_support()  # (8, 5, 3)
    given = guide.latents[1](guide.networks[1](guide.latents[0].features(states))).mean
    exact = (first.log_prob(states).exp()[..., None] * given).sum(0)
    return (found.encode(x, draws=draws)["z2.probs"] - exact) / (0.5 / draws**0.5)


def test_the_second_layer_is_averaged_over_the_first():
    """N = 2 000 draws, 10 comparisons: |z| > 4.5 has a false-alarm rate below 1e-4; a bias of 0.1 is 9 errors."""
    assert second_layer(2000).abs().max() < LIMIT


def test_a_single_pass_for_the_second_layer_is_caught(monkeypatch):
    """The planted fault: the law of the second layer at one draw of the first."""
    monkeypatch.setattr(encoding.torch, "equal", lambda a, b: True)
    assert second_layer(2000).abs().max() > 2 * LIMIT


def test_moments_of_a_second_normal_layer_are_those_of_its_draws():
    """The law of total variance against 1 500 plain draws: 30 comparisons, standard errors from the draws."""
    found = trained("normal", (3, 2))
    codes = found.encode(found.example[0], draws=1500)
    z = torch.as_tensor(found.sample_posterior(found.example[0], 1500)["posterior"]["z2"].to_numpy())[0]
    assert ((codes["z2.mean"] - z.mean(0)) / (z.std(0) * (2 / 1500) ** 0.5)).abs().max() < LIMIT
    assert (codes["z2.scale"] / z.std(0) - 1).abs().max() < 0.12


def test_layers_that_read_the_data_alone_need_one_pass():
    codes = trained("normal", (3, 2), FactorisedGuide).encode(torch.zeros(4, WIDTH), draws=1)
    assert {name: tuple(value.shape) for name, value in codes.items()} == {
        **{f"z1.{part}": (4, 3) for part in ("mean", "scale")},
        **{f"z2.{part}": (4, 2) for part in ("mean", "scale")},
    }
    assert codes["z2.scale"].min() > 0.01


def test_many_rows_are_encoded_in_pieces(monkeypatch):
    found = trained("normal")
    x = torch.rand(50, WIDTH).round()
    whole = found.encode(x)
    monkeypatch.setattr(encoding, "ROWS", 16)
    pieces = found.encode(x)
    assert all(torch.allclose(whole[name], pieces[name], atol=1e-6) for name in whole)


def exact_states(found: Trained) -> tuple[torch.Tensor, torch.Tensor]:
    """The states (8, 3) of z1 and E[x | z1], (8, X)."""
    model = found.model
    states = model.latents[0](model.prior).enumerate_support()
    return states, model.decode(states)


def test_reconstructions_are_the_sum_over_the_guide():
    """1 000 draws, 30 comparisons, standard error at most ½/√1000 = 0.016."""
    found = trained()
    (x,) = found.example
    states, means = exact_states(found)
    weights = found.guide.encode(x)["z1"].log_prob(states[:, None]).exp()  # (8, 5)
    error = found.reconstruct(x, draws=1000) - weights.T @ means
    assert error.abs().max() < LIMIT * 0.5 / 1000**0.5


def generated(found: Trained, mean: bool) -> torch.Tensor:
    exact = exact_states(found)[1].mean(0)  # the prior is uniform
    x = found.generate(20_000, mean=mean, to="torch")
    return (x.mean(0) - exact) / (x.std(0) / 20_000**0.5)


@pytest.mark.parametrize("mean", [False, True])
def test_new_data_have_the_means_of_the_model(mean):
    """20 000 draws, 6 comparisons at 4.5 standard errors: false-alarm rate 4e-5; a bias of 0.016 is found."""
    assert generated(trained(), mean).abs().max() < LIMIT


def test_data_that_are_given_back_are_caught(monkeypatch):
    """The planted fault: the model with its observations in place."""
    monkeypatch.setattr(generating, "Unconditioned", lambda: lambda model: model)
    assert generated(trained(), False).nan_to_num(posinf=99.0, neginf=-99.0).abs().max() > 2 * LIMIT


def test_the_log_likelihood_is_the_sum_over_all_states():
    found = trained()
    (x,) = found.example
    exact = exact_log_likelihood(*found.pair, x)
    assert (found.log_likelihood(x, particles=20_000) - exact).abs().max() < 0.1


@pytest.mark.parametrize("make", [np.asarray, lambda x: x, lambda x: xarray.DataArray(x, dims=("row", "x"))])
def test_results_have_the_form_of_the_data(make):
    found = trained("normal")
    given = make(found.example[0].numpy()) if make is not np.asarray else found.example[0].numpy()
    for result in (found.reconstruct(given), found.log_likelihood(given, particles=5)):
        assert type(result) is type(given) and len(result) == 5
    codes = found.encode(given)
    assert isinstance(codes, xarray.Dataset if isinstance(given, xarray.DataArray) else dict)
    assert found.encode(given, to="xarray")["z1.mean"].dims == ("data", "z1_dim_0")


def test_tables_and_lists_are_read():
    found = trained("normal")
    x = found.example[0].numpy()
    codes = found.encode(x)["z1.mean"]
    assert np.allclose(found.encode(pandas.DataFrame(x))["z1.mean"], codes, atol=1e-5)
    assert np.allclose(found.encode(x.tolist())["z1.mean"], codes, atol=1e-5)


def test_a_result_does_not_move_the_random_stream_or_the_modes():
    found = trained("normal")
    before, mode = torch.get_rng_state(), found.model.training
    found.encode(found.example[0]), found.generate(3), found.reconstruct(found.example[0])
    assert torch.equal(before, torch.get_rng_state()) and found.model.training == mode
    assert np.array_equal(found.generate(3), found.generate(3))
    assert not np.array_equal(found.generate(3), found.generate(3, seed=1))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda found: found.encode("abc"), "give an array of numbers"),
        (lambda found: found.encode([[1.0], [1.0, 2.0]]), "rows of the same length"),
        (lambda found: found.encode(np.zeros((2, 3))), r"takes rows \(B, 6\)"),
        (lambda found: found.encode(np.zeros((0, WIDTH))), "at least one"),
        (lambda found: found.encode(np.zeros((2, WIDTH)), to="panda"), "unknown form 'panda'"),
        (lambda found: found.generate(0), "ask for at least one"),
        (lambda found: found.reconstruct(np.zeros((2, WIDTH)), draws=0), "ask for at least one"),
        (lambda found: found.export("x"), "names no networks"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, words):
    with pytest.raises(UsageError, match=words) as caught:
        call(trained())
    assert "\n" not in str(caught.value)


def test_programs_with_shared_variables_are_encoded_and_scored():
    def model(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    guide = AutoNormal(model)
    x = torch.randn(30, 2)
    y = x @ torch.tensor([1.0, -1.0])
    svi = SVI(model, guide, "adam(lr=0.05)", publish=False)
    for _ in range(200):
        svi.step(x, y)
    found = Trained(svi, (x, y))
    codes = found.encode((x, y), draws=800)
    with found.scope():
        median = guide.median()["w"]
    assert torch.allclose(codes["w.mean"], median, atol=0.06) and codes["w.scale"].shape == (2,)
    assert found.log_likelihood((x, y), particles=50).shape == (30,)
    assert found.generate(7).shape == (7,)
    with pytest.raises(UsageError, match="rows"):
        found.encode((x, y[:3]))
