"""Enumeration against a reference made of loops, against finite differences, and against itself with faults planted."""

import itertools
import math

import exact_cases
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate

from pathscore import exact
from pathscore.errors import UsageError
from pathscore.exact import quantities

CASES = pytest.mark.parametrize("make", exact_cases.CASES, ids=lambda make: make.__name__)


def naive_elbo(case):
    return sum(log_q.exp() * cost for _, log_q, _, cost in exact_cases.assignments(case))


@CASES
def test_elbo_is_that_of_a_loop_over_every_joint_assignment(make):
    case = make()
    assert abs(exact.elbo(case.model, case.guide, *case.args) - naive_elbo(case)) < 1e-12 * 30


@CASES
def test_gradient_is_that_of_the_loop(make):
    case = make()
    params = list(case.params.values())
    expected = torch.autograd.grad(naive_elbo(case), params)
    for found, right in zip(exact.gradient(case.model, case.guide, *case.args, params=params), expected, strict=True):
        assert (found - right).abs().max() < 1e-12 * (30 + right.abs().max())


def numeric_gradient(f, param, step=1e-5):
    grad = torch.zeros_like(param)
    with torch.no_grad():
        for i in range(param.numel()):
            flat, old = param.view(-1), param.view(-1)[i].item()
            flat[i] = old + step
            up = f()
            flat[i] = old - step
            grad.view(-1)[i] = (up - f()) / (2 * step)
            flat[i] = old
    return grad


@CASES
def test_gradient_is_that_of_finite_differences(make):
    case = make()
    params = list(case.params.values())
    found = exact.gradient(case.model, case.guide, *case.args, params=params)
    for param, grad in zip(params, found, strict=True):
        numeric = numeric_gradient(lambda: exact.elbo(case.model, case.guide, *case.args), param)
        assert (grad - numeric).abs().max() < 1e-6


def _scale_the_probabilities(monkeypatch):
    original = exact.quantities.tabulate

    def faulty(*args, **kwargs):
        table = original(*args, **kwargs)
        weights = {t.name: t.scaled for t in table.log_q}
        return exact.Table(table.latents, weights, table.log_measure, table.values, table.log_q, table.log_p)

    monkeypatch.setattr(quantities, "tabulate", faulty)


def _forget(field):
    def plant(monkeypatch):
        original = exact.quantities.tabulate

        def faulty(*args, **kwargs):
            table = original(*args, **kwargs)
            terms = [[exact_term(t, field) for t in log] for log in (table.log_q, table.log_p)]
            return exact.Table(table.latents, table.log_weight, table.log_measure, table.values, *terms)

        monkeypatch.setattr(quantities, "tabulate", faulty)

    return plant


def exact_term(term, field):
    return type(term)(term.name, term.frames, getattr(term, field), term.masked, term.bare)


def _ignore_the_plates(monkeypatch):
    monkeypatch.setattr(exact.Table, "own", lambda self, frames, tensor, name: tensor)


def _drop_a_guide_site(monkeypatch):
    original = quantities.log_weight

    def faulty(table, frames):
        return original(type(table)(table.latents[:1], *list(vars(table).values())[1:]), frames)

    monkeypatch.setattr(quantities, "log_weight", faulty)


FAULTS = {
    "scales in the probabilities": _scale_the_probabilities,
    "no scale": _forget("masked"),
    "no mask": _forget("bare"),
    "plates ignored": _ignore_the_plates,
    "weight of one site": _drop_a_guide_site,
}


@pytest.mark.parametrize("plant", FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_caught_by_the_loop(plant, monkeypatch):
    plant(monkeypatch)
    off = []
    for make in exact_cases.CASES:
        case = make()
        off.append(abs(exact.elbo(case.model, case.guide, *case.args) - naive_elbo(case)).item())
    assert max(off) > 1e-3


@pytest.mark.parametrize("make", [exact_cases.one_layer, exact_cases.categorical, exact_cases.two_layers])
def test_evidence_and_posterior_of_local_latents_are_those_of_the_loop(make):
    case = make()
    log_p = exact.log_evidence(case.model, case.guide, *case.args)
    assert log_p.shape == (len(case.args[0]),)
    rows = [(values, p) for values, _, p, _ in exact_cases.assignments(case)]
    total = torch.stack([p for _, p in rows]).logsumexp(0)
    assert abs(log_p.sum() - total) < 1e-12 * 30
    posterior = exact.posterior(case.model, case.guide, *case.args)
    for name in posterior.sites:
        mean = sum((p - total).exp() * values[name] for values, p in rows)
        assert (posterior.mean(name) - mean).abs().max() < 1e-12
        assert (posterior.marginal(name).sum(0) - 1).abs().max() < 1e-12


def test_evidence_and_posterior_beside_a_global_latent_and_under_nested_plates_are_those_of_the_loop():
    for case in (_unsubsampled(), exact_cases.nested_plates(), exact_cases.matrix_event_without_plate()):
        rows = [(values, p) for values, _, p, _ in exact_cases.assignments(case)]
        total = torch.stack([p for _, p in rows]).logsumexp(0)
        assert abs(exact.log_evidence(case.model, case.guide, *case.args).sum() - total) < 1e-12 * 30
        posterior = exact.posterior(case.model, case.guide, *case.args)
        for name in posterior.sites:
            mean = sum((p - total).exp() * values[name] for values, p in rows)
            assert (posterior.mean(name) - mean).abs().max() < 1e-12


def _unsubsampled():
    p = {"W": torch.randn(3, dtype=torch.float64)}

    def model(x):
        g = pyro.sample("g", dist.Bernoulli(torch.tensor(0.4, dtype=x.dtype)))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Bernoulli(logits=p["W"][0] * g))
            pyro.sample("x", dist.Normal(p["W"][1] * z + p["W"][2] * g, 1.0), obs=x)

    def guide(x):
        pyro.sample("g", dist.Bernoulli(torch.tensor(0.5, dtype=x.dtype)))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Bernoulli(torch.tensor(0.5, dtype=x.dtype)))

    return exact_cases.Case(model, guide, (torch.randn(3, dtype=torch.float64),), p)


def test_masked_data_have_log_evidence_zero():
    case = exact_cases.one_layer()
    mask = torch.tensor([True, False])
    masked = exact.log_evidence(poutine.mask(case.model, mask=mask), case.guide, *case.args)
    whole = exact.log_evidence(case.model, case.guide, *case.args)
    assert torch.allclose(masked, torch.where(mask, whole, 0.0), atol=1e-12)


def test_elbo_equals_pyros_own_enumeration():
    case = exact_cases.nested_plates()  # sites without .to_event, the only ones that Pyro enumerates
    loss = TraceEnum_ELBO(max_plate_nesting=2).differentiable_loss(case.model, config_enumerate(case.guide), *case.args)
    params = list(case.params.values())
    theirs = torch.autograd.grad(-loss, params)
    ours = exact.gradient(case.model, case.guide, *case.args, params=params)
    assert all((a - b).abs().max() < 1e-10 for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_importance_bound_is_that_of_a_loop_over_tuples(alpha):
    case = exact_cases.one_layer()
    found = exact.importance_bound(case.model, case.guide, *case.args, num_particles=3, alpha=alpha)
    total = 0.0
    for x in case.args[0]:
        one = exact_cases.Case(case.model, case.guide, (x[None],), case.params)
        rows = [(log_q, log_p - log_q) for _, log_q, log_p, _ in exact_cases.assignments(one)]
        for draws in itertools.product(rows, repeat=3):
            log_w = torch.stack([w for _, w in draws])
            bound = (((1 - alpha) * log_w).logsumexp(0) - math.log(3)) / (1 - alpha)
            total = total + torch.stack([q for q, _ in draws]).sum().exp() * bound
    assert abs(found - total) < 1e-12 * 30
    params = list(case.params.values())
    ours = exact.gradient(
        case.model, case.guide, *case.args, params=params, of=exact.importance_bound, num_particles=3, alpha=alpha
    )
    assert all((a - b).abs().max() < 1e-11 for a, b in zip(ours, torch.autograd.grad(total, params), strict=True))


def _one_bit(scale):
    logit = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def model(x):
        with pyro.plate("data", scale * len(x), subsample_size=len(x), dim=-1):
            b = pyro.sample("b", dist.Bernoulli(torch.tensor(0.3, dtype=x.dtype)))
            pyro.sample("x", dist.Normal(2 * b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", scale * len(x), subsample_size=len(x), dim=-1):
            pyro.sample("b", dist.Bernoulli(logits=logit).expand([len(x)]))

    return model, guide, logit


def test_fifty_draws_of_one_bit_count_ones():
    model, guide, logit = _one_bit(scale=10)
    x = torch.tensor([0.5, -1.0], dtype=torch.float64)
    found = exact.importance_bound(model, guide, x, num_particles=50)
    q = torch.sigmoid(logit)
    w = torch.stack(
        [dist.Normal(0.0, 1.0).log_prob(x).exp() * 0.7 / (1 - q), dist.Normal(2.0, 1.0).log_prob(x).exp() * 0.3 / q]
    )
    ones = torch.arange(51, dtype=torch.float64)
    chance = dist.Binomial(50, q).log_prob(ones).exp()
    right = 10 * (chance[:, None] * (((50 - ones)[:, None] * w[0] + ones[:, None] * w[1]) / 50).log()).sum()
    assert abs(found - right) < 1e-11
    (ours,) = exact.gradient(model, guide, x, params=[logit], of=exact.importance_bound, num_particles=50)
    assert abs(ours - torch.autograd.grad(right, logit)[0]) < 1e-11


def test_bounds_are_ordered_on_a_hundred_random_models():
    for seed in range(100):
        torch.manual_seed(seed)
        case = exact_cases.one_layer()
        bounds = [exact.importance_bound(case.model, case.guide, *case.args, num_particles=k) for k in (1, 2, 5, 10)]
        assert abs(bounds[0] - exact.elbo(case.model, case.guide, *case.args)) < 1e-12 * 30
        ladder = [*bounds, exact.log_evidence(case.model, case.guide, *case.args).sum()]
        assert all(a <= b + 1e-12 for a, b in itertools.pairwise(ladder)), seed


def test_the_random_stream_is_left_alone():
    case = exact_cases.one_layer()
    before = torch.get_rng_state()
    exact.elbo(case.model, case.guide, *case.args)
    assert torch.equal(before, torch.get_rng_state())


def _local(fn, plate=True):
    def program(x):
        with pyro.plate("data", 2, dim=-1):
            z = pyro.sample("z", fn)
        if not plate:
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0), obs=torch.zeros(1))

    return program


def _without_event(x):
    z = pyro.sample("z", dist.Bernoulli(0.5).expand([2]))
    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(2))


@pytest.mark.parametrize(
    ("model", "guide", "message"),
    [
        (_without_event, _without_event, "site 'z' has a batch dimension of size 2 that is no plate"),
        (
            _local(dist.Bernoulli(0.5).expand([15]).to_event(1)),
            _local(dist.Bernoulli(0.5).expand([15]).to_event(1)),
            "site 'z' has 32768 joint states",
        ),
        (
            _local(dist.MultivariateNormal(torch.zeros(2), torch.eye(2))),
            _local(dist.MultivariateNormal(torch.zeros(2), torch.eye(2))),
            "site 'z' has distribution MultivariateNormal",
        ),
        (_local(dist.Bernoulli(0.5)), lambda x: None, "latent site 'z' of the model is missing from the guide"),
        (
            _local(dist.Bernoulli(0.5), plate=False),
            _local(dist.Bernoulli(0.5)),
            "site 'x' lies outside a plate but depends on a latent site",
        ),
    ],
)
def test_refusals_name_the_site(model, guide, message):
    with pytest.raises(UsageError, match=message):
        exact.elbo(model, guide, torch.zeros(2))


def test_refusals_of_evidence_and_bound_name_the_plate_or_the_count():
    case = exact_cases.global_and_local()
    with pytest.raises(UsageError, match="plate 'data' is subsampled"):
        exact.log_evidence(case.model, case.guide, *case.args)
    case = exact_cases.categorical()
    with pytest.raises(UsageError, match=r"make \d+ multisets"):
        exact.importance_bound(case.model, case.guide, *case.args, num_particles=20)
    case = _unsubsampled()
    with pytest.raises(UsageError, match="do not lie in the same plates"):
        exact.importance_bound(case.model, case.guide, *case.args, num_particles=2)
