"""Weights with noise of their own for each data point: `flipout` and `local-reparameterisation`.

The law of a layer's outputs: N = 6 000 draws of two data points, means and second moments against their closed form,
|z| ≤ 4.5 in each of at most 60 numbers: false alarms 4e-4 in all; a bias of 6 standard errors (0.08 standard deviations
of one draw) is found with 93 %. N = 400 for the ways to write a layer. The gradient: N = 2 000 against the exact one of
Bayesian logistic regression, a one-dimensional integral; the same rule, a bias of 0.13 deviations of one gradient.
Planted: one draw for both data points, σ in place of σ², signs drawn anew where a weight is used twice, a mean that
gets signs too.
"""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.nn import functional as F

from examples.bnn import build
from guides import COVARIANCES
from models.logistic import LogisticRegression, exact_bound
from pathscore import SVI, CompiledELBO, make_elbo
from pathscore.data import load_dataset
from pathscore.errors import UsageError
from pathscore.estimators import Flipout, LocalReparameterisation, row_noise
from pathscore.gradients.lab import Lab

N = 6_000
BOTH = [Flipout, LocalReparameterisation]
pytestmark = pytest.mark.usefixtures("float64")


def law(*shape: int):
    torch.manual_seed(len(shape))
    return dist.Normal(torch.randn(shape), 0.3 + torch.rand(shape)).to_event(len(shape))


def drawn(kind, fn):
    return kind().sample(fn)[0]


def largest_z(values: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest |z| of the means of (N, P) numbers that are not constant."""
    spread = values.std(0)
    moving = spread > 1e-10
    assert torch.allclose(values.mean(0)[~moving], exact[~moving])
    return ((values.mean(0) - exact)[moving].abs() / (spread[moving] / len(values) ** 0.5)).max().item()


def moments(outputs: torch.Tensor) -> torch.Tensor:
    """Outputs, their squares, and products of the outputs of two data points: (N, …) of outputs (N, 2, …)."""
    first, second = outputs.flatten(2).unbind(1)
    return torch.cat([first, second, first**2, second**2, first * second], 1)


def exact_moments(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """The same of independent outputs with these means and variances, (2, …)."""
    (m1, m2), (v1, v2) = mean.flatten(1), variance.flatten(1)
    return torch.cat([m1, m2, m1**2 + v1, m2**2 + v2, m1 * m2])


LINEAR = {
    "linear": (lambda x, w, b: F.linear(x, w, b), (3, 4), True),
    "no bias": (lambda x, w, b: F.linear(x, w), (3, 4), False),
    "module": (lambda x, w, b: torch.nn.functional.linear(input=x, weight=w, bias=b), (3, 4), True),
    "x @ Wᵀ": (lambda x, w, b: x @ w.T, (3, 4), False),
    "W @ xᵀ": (lambda x, w, b: (w @ x.T).T, (3, 4), False),
    "x @ w": (lambda x, w, b: (x @ w)[:, None], (4,), False),
    "w @ xᵀ": (lambda x, w, b: torch.matmul(w, x.T)[:, None], (4,), False),
    "mm": (lambda x, w, b: torch.mm(x, w.t()), (3, 4), False),
}


def outputs_of(kind, name: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws (count, 2, outputs) of a layer at two data points, and their exact moments."""
    layer, shape, biased = LINEAR[name]
    weights, bias, x = law(*shape), law(3), torch.tensor([[1.0, -0.5, 2.0, 0.0], [0.3, 1.0, -1.0, 0.7]])
    torch.manual_seed(0)
    found = torch.stack([layer(x, drawn(kind, weights), drawn(kind, bias)) for _ in range(count)])
    mean = F.linear(x, weights.mean.reshape(-1, 4), bias.mean if biased else None)
    variance = F.linear(x**2, weights.variance.reshape(-1, 4), bias.variance if biased else None)
    return found, exact_moments(mean, variance)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", ["linear", "x @ w"])
def test_outputs_have_their_law_and_those_of_two_data_points_are_uncorrelated(kind, name):
    found, exact = outputs_of(kind, name, N)
    assert largest_z(moments(found), exact) <= 4.5


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", LINEAR)
def test_every_way_to_write_a_layer_gives_rows_their_own_noise(kind, name):
    found, exact = outputs_of(kind, name, 400)
    assert largest_z(moments(found), exact) <= 4.5
    plain = torch.stack([LINEAR[name][0](*shared) for shared in shared_draws(name, 400)])
    assert largest_z(moments(plain), exact) > 4.5  # one draw for both data points: their products differ


def shared_draws(name: str, count: int):
    weights, bias, x = law(*LINEAR[name][1]), law(3), torch.tensor([[1.0, -0.5, 2.0, 0.0], [0.3, 1.0, -1.0, 0.7]])
    return [(x, weights.rsample(), bias.rsample()) for _ in range(count)]


def test_a_convolution_has_one_kernel_for_all_positions_of_an_image():
    weights, bias = law(2, 3, 2, 2), law(2)
    torch.manual_seed(1)
    x = torch.randn(2, 3, 3, 3)
    found = torch.stack([F.conv2d(x, drawn(Flipout, weights), drawn(Flipout, bias)) for _ in range(5000)])
    mean, variance = (
        F.conv2d(a, w, b) for a, w, b in ((x, weights.mean, bias.mean), (x**2, weights.variance, bias.variance))
    )
    assert largest_z(moments(found), exact_moments(mean, variance)) <= 4.5
    one, other = found[:, 0, 0, 0, 0], found[:, 0, 0, 1, 1]
    patches = F.unfold(x[:1], 2)[0]  # (12, positions)
    shared = (patches[:, 0] * patches[:, 3] * weights.variance[0].flatten()).sum() + bias.variance[0]
    products = (one - mean[0, 0, 0, 0]) * (other - mean[0, 0, 1, 1])
    assert largest_z(products[:, None], shared[None]) <= 4.5


def test_a_weight_that_is_used_twice_is_the_same_one_for_a_data_point(monkeypatch):
    weights, x = law(2, 2), torch.tensor([[1.0, 0.5], [0.2, -1.0]])

    def twice(count):
        torch.manual_seed(2)
        draws = [drawn(Flipout, weights) for _ in range(count)]
        return torch.stack([F.linear(x, w) * F.linear(2 * x, w) for w in draws]).flatten(1)

    mean, variance = F.linear(x, weights.mean), F.linear(x**2, weights.variance)
    exact = (2 * (mean**2 + variance)).flatten()
    assert largest_z(twice(5000), exact) <= 4.5
    fresh = lambda rule, side, rows, count, like: row_noise._signs(rows, count, like=like)  # noqa: E731
    monkeypatch.setattr(row_noise._Signs, "signs", fresh)
    assert largest_z(twice(5000), exact) > 4.5
    with pytest.raises(UsageError, match="used once"):
        weight = drawn(LocalReparameterisation, weights)
        F.linear(F.linear(x, weight), weight)


def logistic(count: int = 24):
    data = load_dataset("breast-cancer")
    torch.manual_seed(0)
    guide = COVARIANCES["diagonal"]("w", 4)
    with torch.no_grad():
        guide.loc.add_(0.4 * torch.randn(4))
    return LogisticRegression(count), guide, data.x[:count, :3].double(), data.labels[:count]


def gradients(estimator, count: int = 2000) -> torch.Tensor:
    model, guide, x, y = logistic()
    lab = Lab(model, guide, (x, y))
    objective = lab.objectives({"it": {"w": estimator}})["it"]
    torch.manual_seed(3)
    return lab.pair.draw(objective, count)[0]


def exact_gradient() -> torch.Tensor:
    _, guide, x, y = logistic()
    law = guide.law().base_dist
    leaves = [t.detach().requires_grad_() for t in (law.loc, law.scale)]
    q = torch.distributions.Independent(torch.distributions.Normal(*leaves), 1)
    return torch.cat(torch.autograd.grad(exact_bound(q, x, y), leaves))


@pytest.mark.parametrize("kind", BOTH)
def test_the_gradient_of_logistic_regression_is_the_exact_one(kind):
    assert largest_z(gradients(kind()), exact_gradient()) <= 4.5


def sigma_for_variance(monkeypatch):
    kept = row_noise.perturbed

    def wrong(value, loc, rule):
        rule.variance = rule.variance.sqrt()
        return kept(value, loc, rule)

    monkeypatch.setattr(row_noise, "perturbed", wrong)
    return LocalReparameterisation


def signs_for_the_mean(monkeypatch):
    def wrong(rule, product, x, weight):
        s, r = rule.signs("in", len(x), x.shape[-1], x), rule.signs("out", len(x), len(weight), x)
        return r * product(x * s, row_noise.plain(weight))

    monkeypatch.setattr(row_noise._Signs, "product", wrong)
    return Flipout


@pytest.mark.parametrize("fault", [sigma_for_variance, signs_for_the_mean])
def test_planted_faults_are_caught(monkeypatch, fault):
    assert largest_z(gradients(fault(monkeypatch)()), exact_gradient()) > 4.5


def network(x, y, wrong=None):
    """Two layers of weights in a program that nobody wrote for these estimators."""
    w = pyro.sample("w", dist.Normal(torch.zeros(5, 3), 1.0).to_event(2))
    v = pyro.sample("v", dist.Normal(torch.zeros(1, 5), 1.0).to_event(2))
    h = torch.tanh(F.linear(x, w))
    if wrong == "the batch":
        h = h - h.mean(0)
    if wrong == "the weight":
        h = h * w.sum()
    if wrong == "twice":
        h = h + F.linear(x, w)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(F.linear(h, v).squeeze(-1), 1.0), obs=y)


NOT_WRITTEN_FOR_ROWS = pytest.mark.filterwarnings("ignore::pathscore.programs.broadcasting.BroadcastingWarning")


def normals(x, y, wrong=None):
    for name, shape in (("w", (5, 3)), ("v", (1, 5))):
        loc = pyro.param(f"{name}_loc", torch.linspace(-1, 1, shape[0] * shape[1]).reshape(shape).sin())
        pyro.sample(name, dist.Normal(loc, 0.3).to_event(2))


def data(count: int = 12):
    torch.manual_seed(5)
    return torch.randn(count, 3), torch.randn(count)


@pytest.mark.parametrize(
    ("estimator", "wrong", "words"),
    [
        ("flipout", "the batch", "site 'w'.*12 rows of an input.*not the data points of a plate of 'y'"),
        ("flipout", "the weight", "here it goes into sum: use pathwise"),
        ("local-reparameterisation", "twice", "used once"),
    ],
)
def test_what_rows_of_their_own_would_make_wrong_is_refused(estimator, wrong, words):
    with pytest.raises(UsageError, match=words):
        SVI(network, normals, "adam", make_elbo("trace", estimator)).step(*data(), wrong)


@NOT_WRITTEN_FOR_ROWS
@pytest.mark.parametrize("elbo", ["iwae", "dreg", "vimco"])
def test_importance_weights_are_refused(elbo):
    with pytest.raises(UsageError, match="gives each one: use pathwise"):
        SVI(network, normals, "adam", make_elbo(elbo, "flipout", num_particles=2)).step(*data())


def test_a_latent_of_each_data_point_is_refused():
    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("w", dist.Normal(torch.zeros(len(x), 5), 1.0).to_event(1))

    with pytest.raises(UsageError, match="weights that all data points share"):
        SVI(lambda x, y: guide(x, y), guide, "adam", make_elbo("trace", "flipout")).step(*data())


def test_local_reparameterisation_does_not_serve_images():
    with pytest.raises(UsageError, match=r"positions of an input of 4 dimensions.*use flipout"):
        F.conv2d(torch.randn(2, 1, 4, 4), drawn(LocalReparameterisation, law(1, 1, 2, 2)))


@pytest.mark.parametrize("estimator", ["flipout", "local-reparameterisation"])
def test_an_autoguide_of_a_pyro_module_is_served_by_the_names_of_its_weights(estimator):
    model, _, args = build()
    guide = AutoNormal(model)
    elbo = make_elbo("trace", f"*.weight={estimator}", num_particles=2)
    svi = SVI(model, guide, "adam", elbo)
    losses = [svi.step(*args) for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])
    served = [line.split()[0] for line in elbo.explain(model, guide, *args).splitlines() if f" {estimator} " in line]
    assert served == ["hidden.weight_unconstrained", "out.weight_unconstrained"]


@pytest.mark.parametrize("estimator", ["flipout", "local-reparameterisation"])
def test_a_compiled_run_says_that_it_runs_eagerly_and_takes_the_eager_steps(estimator):
    losses = []
    for wrap in (lambda e: e, lambda e: CompiledELBO(e, builder=lambda capture, inputs: capture.graph)):
        with pyro.get_param_store().scope(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            svi = SVI(network, normals, "adam", wrap(make_elbo("trace", estimator)))
            svi.step(*data())
            torch.manual_seed(6)
            losses.append([svi.step(*data()) for _ in range(4)])
    assert losses[0] == losses[1]
    assert [str(w.message) for w in said] == [
        f"--compile: the program runs eagerly: {estimator} hands each row noise of its own in calls that a graph does "
        "not record"
    ]


@NOT_WRITTEN_FOR_ROWS
def test_the_variance_falls_with_the_batch_where_rows_have_noise_of_their_own():
    """Of the mean over B data points, B = 8 against 128; one shared draw keeps the covariance of two of them.

    Signs take away what is odd in W − μ; its size stays shared, which a net of twenty weights still shows.
    """

    def variance(estimator, count):
        lab = Lab(network, normals, data(count))
        objective = lab.objectives({"it": estimator})["it"]
        torch.manual_seed(7)
        found = lab.pair.draw(objective, 200)[0] / count
        return found.var(0).sum()

    falls = {
        name: variance(name, 8) / variance(name, 128) for name in ("pathwise", "flipout", "local-reparameterisation")
    }
    assert falls["local-reparameterisation"] > 8 and falls["flipout"] > 2.5 and falls["pathwise"] < 1.5, falls


def test_a_module_of_torch_with_a_drawn_weight_is_served():
    layer = nn.Linear(4, 3)
    weight = drawn(Flipout, law(3, 4))
    out = torch.func.functional_call(layer, {"weight": weight, "bias": layer.bias}, (torch.ones(6, 4),))
    assert out.std(0).min() > 0  # six equal data points, each with weights of its own
