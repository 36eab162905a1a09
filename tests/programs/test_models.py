"""The models: one list of configurations, one body of properties that all of them have."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, Predictive
from torch.fx.experimental.proxy_tensor import make_fx

from models import LATENTS, LIKELIHOODS, TRUNKS, VAE
from pathscore.data.values import BINARY_LIKELIHOODS
from pathscore.errors import UsageError

X, B = 9, 5


IMAGE = (1, 3, 3)


SMALL = {"classes": 3, "hidden": (4,), "shape": IMAGE}


PROGRAMS = [
    {"latent": latent, "layers": layers, "trunk": trunk, **SMALL}
    for latent in LATENTS
    for layers in ((3,), (3, 2))
    for trunk in TRUNKS
]


def name_of(config):
    return "-".join(str(config[key]) for key in ("latent", "layers", "trunk"))


every_program = pytest.mark.parametrize("config", PROGRAMS, ids=name_of)


every_latent = pytest.mark.parametrize("latent", LATENTS)


def trace_of(model, *args, **kwargs):
    trace = poutine.trace(model).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    return trace


@every_program
def test_sites_come_top_down_with_the_shapes_of_the_contract(config):
    model = VAE(X, **config)
    trace = trace_of(model, size=B)
    drawn = [site for site in trace.stochastic_nodes if site != "data"]
    assert drawn == [*reversed(model.latent_sites), "x"]
    for site, size in zip(model.latent_sites, config["layers"], strict=True):
        event = (size, 3) if config["latent"] == "categorical" else (size,)
        assert trace.nodes[site]["value"].shape == (B, *event)
        assert trace.nodes[site]["log_prob"].shape == (B,)
    assert trace.nodes["x"]["value"].shape == (B, X)
    assert [frame.name for frame in trace.nodes["x"]["cond_indep_stack"]] == ["data"]


@every_program
def test_leading_dimensions_score_as_each_row_alone(config):
    model = VAE(X, **config).double()
    x = torch.rand(B, X).round().double()
    draws = [trace_of(model, x) for _ in range(3)]
    stacked = {site: torch.stack([draw.nodes[site]["value"] for draw in draws]) for site in model.latent_sites}
    together = trace_of(poutine.condition(model, data=stacked), x)
    for site in (*model.latent_sites, "x"):
        apart = torch.stack([draw.nodes[site]["log_prob"] for draw in draws])
        torch.testing.assert_close(together.nodes[site]["log_prob"].expand_as(apart), apart, rtol=1e-12, atol=1e-12)


@every_program
def test_every_parameter_has_a_finite_gradient(config):
    model = VAE(X, prior="learned", **config)
    trace_of(model, torch.rand(B, X).round()).log_prob_sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_the_density_is_the_one_written_out_by_hand():
    """log p(z2) + log p(z1 | z2) + log p(x | z1) of a Bernoulli belief net, from the formulas, in float64."""
    model = VAE(X, latent="bernoulli", layers=(3, 2), trunk="linear", x_mean=torch.rand(X)).double()
    x = torch.rand(B, X).round().double()
    trace = trace_of(model, x)
    z1, z2 = (trace.nodes[site]["value"] for site in ("z1", "z2"))
    (between,), decoder = model.between, model.decoder
    p1 = torch.sigmoid((2 * z2 - 1) @ between.weight.T + between.bias)
    p_x = torch.sigmoid((2 * z1 - 1) @ decoder.weight.T + decoder.bias)
    log_p = 2 * math.log(0.5) + sum(
        (value * p.log() + (1 - value) * (1 - p).log()).sum(-1) for value, p in ((z1, p1), (x, p_x))
    )
    torch.testing.assert_close(sum(trace.nodes[s]["log_prob"] for s in ("z1", "z2", "x")), log_p, rtol=1e-12, atol=0)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("pixel", [0.0, 1.0])
@every_latent
def test_blank_images_and_extreme_outputs_stay_finite_in_float32(likelihood, pixel, latent):
    x = torch.full((B, X), pixel)
    model = VAE(X, latent=latent, likelihood=likelihood, layers=(3, 2), x_mean=x[0], **SMALL)
    score = trace_of(model, x).log_prob_sum()
    score.backward()
    assert score.isfinite() and all(p.grad.isfinite().all() for p in model.parameters())
    for raw in (-1e4, 1e4):
        assert model.likelihood(torch.full((B, X), raw)).log_prob(x).isfinite().all()


def test_a_formula_by_probabilities_is_not_finite_there():
    """The planted fault: log σ(φ) by way of σ(φ)."""
    assert not (1 - torch.tensor(1e4).sigmoid()).log().isfinite()


@every_program
def test_predictive_draws_from_the_prior(config):
    model = VAE(X, **config)
    for parallel in (False, True):
        draws = Predictive(model, num_samples=4, parallel=parallel)(size=B)
        assert draws["x"].shape == (4, B, X)
        assert {0.0, 1.0} >= set(draws["x"].unique().tolist())


@every_program
def test_decode_is_the_mean_of_x_given_z1(config):
    model = VAE(X, **config)
    trace = trace_of(model, size=B)
    mean = model.decode(trace.nodes["z1"]["value"])
    torch.testing.assert_close(mean, trace.nodes["x"]["fn"].mean)


def test_the_path_runs_from_every_layer_to_the_one_below():
    model = VAE(X, layers=(3, 2), **SMALL)
    values = {"z2": torch.randn(B, 2, requires_grad=True), "z1": torch.randn(B, 3, requires_grad=True)}
    trace = trace_of(poutine.condition(model, data=values), torch.rand(B, X).round())
    for above, below in (("z2", "z1"), ("z1", "x")):
        (gradient,) = torch.autograd.grad(trace.nodes[below]["log_prob"].sum(), values[above], retain_graph=True)
        assert (gradient != 0).all()


def test_never_and_always_lit_pixels_start_at_finite_log_odds():
    bias = LIKELIHOODS["bernoulli"]().raw(torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(bias, torch.tensor([-6.906755, 0.0, 6.906755]))


def test_a_learned_prior_is_a_parameter_and_a_fixed_one_is_saved_too():
    for prior in ("fixed", "learned"):
        model = VAE(X, prior=prior)
        assert ("prior" in dict(model.named_parameters())) == (prior == "learned")
        assert "prior" in model.state_dict()


def test_nuts_samples_the_posterior_of_a_small_normal_model():
    """A linear-Gaussian model, whose posterior is known: mean of 300 draws within .1 of the exact one.

    The posterior's standard deviation is .22 a coordinate; at 100 effective draws .1 is 4.5 standard errors, and the
    bias detectable nine times in ten. The prior's mean, 0, is further off than that.
    """
    model = VAE(3, layers=(2,), trunk="linear", likelihood="normal").double()
    weight = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    with torch.no_grad():
        model.decoder.weight.copy_(weight)
    model.requires_grad_(False).eval()
    x = torch.tensor([[2.0, -1.0, 1.0], [-1.0, 2.0, 0.5]], dtype=torch.float64)
    sampler = MCMC(NUTS(model), num_samples=300, warmup_steps=100, disable_progbar=True)
    sampler.run(x)
    precision = torch.eye(2, dtype=torch.float64) + weight.T @ weight / 0.25
    exact = torch.linalg.solve(precision, weight.T @ (x - model.decoder.bias).T / 0.25).T
    assert exact.abs().min() > 0.1 and precision.inverse().diagonal().sqrt().max() < 0.24
    assert (sampler.get_samples()["z1"].mean(0) - exact).abs().max() < 0.1


@every_latent
def test_the_program_traces_into_one_graph(latent):
    """`make_fx` follows tensors only: it would stop at `.item()` or a branch on a value."""
    model = VAE(X, latent=latent, layers=(3, 2), **SMALL)

    def score(x):
        return trace_of(model, x).log_prob_sum()

    x = torch.rand(B, X).round()
    with pyro.validation_enabled(False):  # validation itself branches on values
        graph = make_fx(score)(x)
        pyro.set_rng_seed(1)
        eager = score(x)
        pyro.set_rng_seed(1)
        torch.testing.assert_close(graph(x), eager, rtol=0, atol=0)


def test_two_models_of_one_seed_are_equal_and_draw_no_numbers_when_scored():
    pyro.set_rng_seed(3)
    one = VAE(X, **SMALL)
    pyro.set_rng_seed(3)
    two = VAE(X, **SMALL)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    x, state = torch.rand(B, X).round(), None
    conditioned = poutine.condition(one, data={"z1": torch.zeros(B, 16)})
    state = torch.get_rng_state()
    trace_of(conditioned, x)
    assert torch.equal(state, torch.get_rng_state())


def test_the_tables_and_the_data_checks_agree_on_what_is_binary():
    assert [name for name, entry in LIKELIHOODS.items() if entry.kinds == ("binary",)] == list(BINARY_LIKELIHOODS)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"latent": "bernouli"}, "unknown latent 'bernouli': did you mean 'bernoulli'?"),
        ({"likelihood": "norml"}, "unknown likelihood 'norml': did you mean 'normal'?"),
        ({"trunk": "cnv"}, "unknown trunk 'cnv': did you mean 'conv'?"),
        ({"activation": "than"}, "unknown activation 'than': did you mean 'tanh'?"),
        ({"prior": "lerned"}, "unknown prior 'lerned': did you mean 'learned'?"),
        ({"layers": ()}, "--layers '': give at least one layer, each of at least 1 variable"),
        ({"layers": (3, 0)}, "--layers 3,0: give at least one layer, each of at least 1 variable"),
        ({"hidden": (0,)}, "--hidden 0: every width must be at least 1"),
        ({"latent": "categorical", "classes": 1}, "--classes 1: a categorical variable needs at least 2 classes"),
        ({"trunk": "conv"}, "--trunk conv needs images, and this data has shape (9,): choose linear or mlp"),
        (
            {"trunk": "conv", "shape": IMAGE, "hidden": ()},
            "--trunk conv needs --hidden, one number of channels per convolution: for example 32,64",
        ),
        ({"shape": (1, 4, 4)}, "shape (1, 4, 4) holds 16 numbers, the data 9: give the data's shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused_by_name(config, message):
    with pytest.raises(UsageError) as error:
        VAE(X, **config)
    assert str(error.value) == message
