"""The guides: the sites they mirror, what each layer reads, and gradients under Pyro's own objectives."""

import warnings

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.ops.provenance import get_provenance, track_provenance
from torch.fx.experimental.proxy_tensor import make_fx

from guides import GUIDES, AmortizedGuide, FactorisedGuide
from models import LATENTS, TRUNKS, VAE
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


def test_one_dictionary_builds_model_and_guide_and_strangers_are_refused():
    config = {"data_size": X, "latent": "bernoulli", "likelihood": "bernoulli", "prior": "learned", **SMALL}
    assert VAE(**config).latent_sites == AmortizedGuide(**config).latent_sites == FactorisedGuide(**config).latent_sites
    with pytest.raises(TypeError, match="latents"):
        AmortizedGuide(X, latents="bernoulli")


@every_guide
def test_a_guide_without_data_says_what_to_call(guide):
    with pytest.raises(UsageError) as error:
        GUIDES[guide](X)()
    expected = "a guide needs data: call guide(x); for samples from the prior call the model"
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
