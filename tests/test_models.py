"""The models: one list of configurations, one body of properties that all of them have."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, Predictive
from torch.fx.experimental.proxy_tensor import make_fx

from models import ACTIVATIONS, LATENTS, LIKELIHOODS, TRUNKS, VAE
from models.latents import SCALE_FLOOR, latent_layers, positive
from pathscore.errors import UsageError
from pathscore.values import BINARY_LIKELIHOODS

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


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_builds(activation):
    assert trace_of(VAE(X, activation=activation), size=B).log_prob_sum().isfinite()


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
