"""The guides, and each with the model it mirrors under Pyro's own objectives."""

import warnings
from itertools import product

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO, config_enumerate
from pyro.ops.provenance import get_provenance, track_provenance
from pyro.optim import Adam
from torch.fx.experimental.proxy_tensor import make_fx

from guides import GUIDES, AmortizedGuide, FactorisedGuide
from models import LATENTS, TRUNKS, VAE
from pathscore.data import binarize, load_dataset
from pathscore.errors import UsageError

X, B = 9, 5
SMALL = {"classes": 3, "hidden": (4,), "shape": (1, 3, 3)}
PAIRS = [
    (guide, {"latent": latent, "layers": layers, "trunk": trunk, **SMALL})
    for guide in GUIDES
    for latent in LATENTS
    for layers in ((3,), (3, 2))
    for trunk in TRUNKS
]
every_pair = pytest.mark.parametrize(
    ("guide", "config"), PAIRS, ids=[f"{guide}-{c['latent']}-{c['layers']}-{c['trunk']}" for guide, c in PAIRS]
)
every_guide = pytest.mark.parametrize("guide", GUIDES)
ELBOS = {
    "trace": Trace_ELBO(max_plate_nesting=1),
    "trace, 4 particles": Trace_ELBO(4, vectorize_particles=True, max_plate_nesting=1),
    "tracegraph": TraceGraph_ELBO(max_plate_nesting=1),
    "tracegraph, 4 particles": TraceGraph_ELBO(4, vectorize_particles=True, max_plate_nesting=1),
}


def pair(guide, **config):
    return VAE(X, **config), GUIDES[guide](X, **config)


def images(dtype=torch.float32):
    return torch.rand(B, X).round().to(dtype)


@every_pair
def test_the_guide_mirrors_the_sites_of_the_model(guide, config):
    model, guide = pair(guide, **config)
    x = images()
    trace, model_trace = poutine.trace(guide).get_trace(x), poutine.trace(model).get_trace(x)
    upwards = isinstance(guide, AmortizedGuide)
    drawn = [site for site in trace.stochastic_nodes if site != "data"]
    assert drawn == list(model.latent_sites[:: 1 if upwards else -1])
    for site in model.latent_sites:
        assert trace.nodes[site]["value"].shape == model_trace.nodes[site]["value"].shape
        assert type(trace.nodes[site]["fn"]) is type(model_trace.nodes[site]["fn"])


@every_pair
def test_every_parameter_learns_under_trace_and_tracegraph(guide, config):
    model, guide = pair(guide, prior="learned", **config)
    for elbo in ELBOS.values():
        for module in (model, guide):
            module.zero_grad(set_to_none=True)
        assert elbo.loss_and_grads(model, guide, images()) > 0
        for name, parameter in [*model.named_parameters(), *guide.named_parameters()]:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


@every_guide
@pytest.mark.parametrize("latent", ["normal", "laplace", "lognormal"])
def test_every_parameter_learns_under_meanfield(guide, latent):
    model, guide = pair(guide, latent=latent, layers=(3,), prior="learned", **SMALL)
    TraceMeanField_ELBO(max_plate_nesting=1).loss_and_grads(model, guide, images())
    for name, parameter in [*model.named_parameters(), *guide.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_a_closed_form_kl_is_right_for_several_layers_of_the_factorised_guide_only():
    """40 replicates of N = 10 000 rows: |z| ≤ 4, false alarms 1e-4, finds .044 nats a row nine times in ten.

    The bottom-up guide is the planted fault, wrong by 1.0: there z2, on which the prior of z1 depends, is drawn
    given z1.
    """
    x = torch.rand(1, X).round().expand(10_000, X)

    def z(guide):
        pyro.set_rng_seed(0)
        model, guide = pair(guide, latent="normal", layers=(3, 2), hidden=(8,))
        with torch.no_grad():
            for parameter in [*model.parameters(), *guide.parameters()]:
                parameter.add_(0.3 * torch.randn_like(parameter))
            bounds = [
                torch.tensor([elbo.loss(model, guide, x) / len(x) for _ in range(40)], dtype=torch.float64)
                for elbo in (ELBOS["trace"], TraceMeanField_ELBO(max_plate_nesting=1))
            ]
        return (bounds[0].mean() - bounds[1].mean()).abs() / (sum(b.var() / len(b) for b in bounds) ** 0.5)

    assert z("factorised") <= 4
    with pytest.warns(UserWarning, match="mean field"):
        assert z("amortised") > 4


def exact_elbo(model, guide, x):
    """Σ_z q(z | x) (log p(x, z) − log q(z | x)) of each row, (B,), state by state, for layers of finite families."""
    site_states = [family(family.standard()).enumerate_support() for family in model.latents]
    total = torch.zeros(len(x), dtype=x.dtype)
    for states in product(*site_states):
        values = {s: z.to(x.dtype).expand(len(x), *z.shape) for s, z in zip(model.latent_sites, states, strict=True)}
        log_q = score(guide, values, x, model.latent_sites)
        total += log_q.exp() * (score(model, values, x, (*model.latent_sites, "x")) - log_q)
    return total


def score(program, values, x, sites):
    trace = poutine.trace(poutine.condition(program, data=values)).get_trace(x)
    trace.compute_log_prob()
    return sum(trace.nodes[site]["log_prob"] for site in sites)


@every_guide
@pytest.mark.parametrize("layers", [(1,), (3,), (2, 2), (2, 1, 2)])
@pytest.mark.parametrize("latent", ["bernoulli", "categorical"])
def test_enumeration_is_the_exact_bound(guide, latent, layers):
    model, guide = (module.double() for module in pair(guide, latent=latent, layers=layers, **SMALL))
    x = images(torch.float64)
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    with torch.no_grad():
        exact = exact_elbo(model, guide, x).sum()
        loss = elbo.loss(model, config_enumerate(guide), x)
    torch.testing.assert_close(-loss, exact.item(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("latent", ["bernoulli", "categorical"])
def test_the_gradient_of_enumeration_is_that_of_the_exact_bound(latent):
    model, guide = (module.double() for module in pair("amortised", latent=latent, layers=(2, 1), **SMALL))
    x = images(torch.float64)
    parameters = [*model.parameters(), *guide.parameters()]
    expected = torch.autograd.grad(-exact_elbo(model, guide, x).sum(), parameters)
    TraceEnum_ELBO(max_plate_nesting=1).loss_and_grads(model, config_enumerate(guide), x)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-12)


def test_the_bound_is_the_one_written_out_by_hand():
    """−ELBO of the normal model from Kingma and Welling's formulas, with the same noise, to rounding in float64."""
    model, guide = pair("amortised", latent="normal", layers=(3,), hidden=(4,), x_mean=torch.rand(X))
    model, guide, x = model.double(), guide.double(), images(torch.float64)
    mu, raw = guide.networks[0](x - guide.x_mean).chunk(2, -1)
    sigma = torch.log1p(raw.exp()) + 1e-6
    pyro.set_rng_seed(7)
    z = mu + sigma * torch.randn(B, 3, dtype=torch.float64)
    p = torch.sigmoid(model.decoder(z))
    log_p_x = (x * p.log() + (1 - x) * (1 - p).log()).sum()
    kl = 0.5 * (mu**2 + sigma**2 - 1 - 2 * sigma.log()).sum()
    pyro.set_rng_seed(7)
    loss = TraceMeanField_ELBO(max_plate_nesting=1).loss(model, guide, x)
    # The prior's scale is 1 to the rounding of float32, in which the model was made.
    torch.testing.assert_close(loss, (kl - log_p_x).item(), rtol=1e-6, atol=0)


@every_guide
def test_costs_can_be_followed_from_every_site_to_the_data(guide):
    """Credit by dependence needs provenance to pass through features, networks and densities."""
    model, guide = pair(guide, latent="bernoulli", layers=(3, 2), **SMALL)
    x = images()
    drawn = poutine.trace(guide).get_trace(x)
    values = {s: track_provenance(drawn.nodes[s]["value"], frozenset([s])) for s in model.latent_sites}
    trace = poutine.trace(poutine.condition(model, data=values)).get_trace(x)
    trace.compute_log_prob()
    assert get_provenance(trace.nodes["x"]["log_prob"]) == {"z1"}
    assert get_provenance(trace.nodes["z1"]["log_prob"]) == {"z1", "z2"}
    q = poutine.trace(poutine.condition(guide, data=values)).get_trace(x)
    q.compute_log_prob()
    above = {"z1", "z2"} if isinstance(guide, AmortizedGuide) else {"z2"}
    assert get_provenance(q.nodes["z2"]["log_prob"]) == above


@every_pair
def test_encode_gives_the_distributions_of_one_pass_and_registers_nothing(guide, config):
    _, guide = pair(guide, **config)
    x = images()
    with torch.no_grad():
        found = guide.encode(x)
    assert list(found) == list(guide.latent_sites)
    assert not pyro.get_param_store().keys()
    for site, size in zip(found, config["layers"], strict=True):
        event = (size, 3) if config["latent"] == "categorical" else (size,)
        assert found[site].batch_shape == (B,) and found[site].event_shape == event
    z = poutine.trace(guide).get_trace(x).nodes["z1"]
    torch.testing.assert_close(found["z1"].log_prob(z["value"]), z["fn"].log_prob(z["value"]))


@pytest.mark.parametrize(("guide", "depends"), [("amortised", True), ("factorised", False)])
def test_the_second_layer_reads_the_first_or_the_data(guide, depends):
    _, guide = pair(guide, latent="normal", layers=(3, 2), **SMALL)
    x = images()

    def second(z1):
        node = poutine.trace(poutine.condition(guide, data={"z1": z1})).get_trace(x).nodes["z2"]
        return node["fn"].mean

    moved = not torch.equal(second(torch.zeros(B, 3)), second(torch.ones(B, 3)))
    assert moved == depends


def test_the_path_runs_upwards_through_the_draw():
    _, guide = pair("amortised", latent="normal", layers=(3, 2), **SMALL)
    guide.encode(images())["z2"].mean.sum().backward()
    assert all((parameter.grad != 0).any() for parameter in guide.networks[0].parameters())


@every_guide
def test_the_encoder_sees_the_data_less_its_mean(guide):
    x_mean = torch.rand(X)
    guide = GUIDES[guide](X, latent="bernoulli", layers=(3,), hidden=(4,), x_mean=x_mean)
    found = guide.encode(x_mean.expand(B, X))["z1"]
    torch.testing.assert_close(found.mean, torch.full((B, 3), 0.5))  # biases start at 0, so nothing is left
    assert not torch.allclose(guide.encode(images())["z1"].mean, torch.full((B, 3), 0.5))


@pytest.mark.parametrize("latent", LATENTS)
def test_model_and_guide_trace_into_one_graph(latent):
    model, guide = pair("amortised", latent=latent, layers=(3, 2), **SMALL)

    def loss(x):  # Pyro's own objectives branch on a NaN in the loss
        q = poutine.trace(guide).get_trace(x)
        p = poutine.trace(poutine.replay(model, trace=q)).get_trace(x)
        return q.log_prob_sum() - p.log_prob_sum()

    x = images()
    with pyro.validation_enabled(False):  # validation branches on values
        graph = make_fx(loss)(x)
        pyro.set_rng_seed(1)
        eager = loss(x)
        pyro.set_rng_seed(1)
        torch.testing.assert_close(graph(x), eager, rtol=0, atol=0)


@pytest.mark.parametrize("pixel", [0.0, 1.0])
@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_the_bound_is_finite_for_blank_images_and_extreme_encoders(latent, pixel, size):
    x = torch.full((B, X), pixel)
    model, guide = pair("amortised", latent=latent, layers=(3, 2), x_mean=x[0], **SMALL)
    with torch.no_grad():
        guide.networks[0][-1].bias.fill_(size)
    assert torch.tensor(Trace_ELBO(max_plate_nesting=1).loss_and_grads(model, guide, x)).isfinite()
    for parameter in [*model.parameters(), *guide.parameters()]:
        assert parameter.grad.isfinite().all()


def test_float32_gradients_agree_with_float64():
    """Relative difference below 1e-3 for every parameter, at the same noise."""
    gradients = []
    x, noise = images(torch.float64), torch.randn(B, 3, dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        pyro.set_rng_seed(2)
        model, guide = (module.to(dtype) for module in pair("amortised", latent="normal", layers=(3,), **SMALL))
        q = guide.encode(x.to(dtype))["z1"]
        z = q.base_dist.loc + q.base_dist.scale * noise.to(dtype)
        log_p = score(model, {"z1": z}, x.to(dtype), ("z1", "x")) - q.log_prob(z)
        gradients.append(torch.autograd.grad(log_p.sum(), [*model.parameters(), *guide.parameters()]))
    for single, double in zip(*gradients, strict=True):
        assert (single - double).norm() < 1e-3 * double.norm()


@pytest.mark.parametrize("latent", LATENTS)
def test_three_hundred_steps_on_the_digits_beat_the_pixels_alone(latent):
    """The bound must pass that of independent pixels at their log-odds, which is where training starts."""
    digits = load_dataset("digits")
    x = binarize(digits.x, "static")
    config = {"latent": latent, "layers": (8,), "classes": 4, "x_mean": x.mean(0)}
    model, guide = VAE(**config), AmortizedGuide(**config)
    pixels = model.likelihood(model.likelihood.raw(x.mean(0))).log_prob(x).mean().item()
    svi = SVI(model, guide, Adam({"lr": 5e-3}), ELBOS["tracegraph"])
    for step in range(300):
        svi.step(x[50 * (step % 30) :][:50])
    bound = -ELBOS["trace"].loss(model, guide, x) / len(x)
    assert bound > pixels + 0.2


def test_one_dictionary_builds_model_and_guide_and_strangers_are_refused():
    config = {"data_size": X, "latent": "bernoulli", "likelihood": "bernoulli", "prior": "learned", **SMALL}
    assert VAE(**config).latent_sites == AmortizedGuide(**config).latent_sites == FactorisedGuide(**config).latent_sites
    with pytest.raises(TypeError, match="latents"):
        AmortizedGuide(X, latents="bernoulli")


@every_guide
def test_a_guide_without_data_says_what_to_call(guide):
    with pytest.raises(UsageError) as error:
        GUIDES[guide](X)()
    expected = "a guide needs data: call guide(x); for samples from the prior call the model alone"
    assert str(error.value) == expected


def test_parameters_are_registered_under_model_and_guide():
    model, guide = pair("amortised", **SMALL)
    Trace_ELBO(max_plate_nesting=1).loss_and_grads(model, guide, images())
    assert {name.split("$$$")[0] for name in pyro.get_param_store()} == {"model", "guide"}


def test_a_run_gives_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, guide = pair("amortised", **SMALL)
        for elbo in ELBOS.values():
            elbo.loss_and_grads(model, guide, images())
