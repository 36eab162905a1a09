"""Quadrature and the linear-Gaussian closed form against formulas from textbooks, and against each other."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import kl_divergence

from pathscore import exact
from pathscore.errors import UsageError
from pathscore.exact import gaussian


def _t(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


FAMILIES = {
    "normal": (lambda a, b: dist.Normal(a, b), 1e-12),
    "lognormal": (lambda a, b: dist.LogNormal(a, b), 1e-12),
    "gamma": (lambda a, b: dist.Gamma(a, b), 1e-9),
    "beta": (lambda a, b: dist.Beta(a, b), 1e-9),
    "poisson": (lambda a, b: dist.Poisson(4 * a), 1e-12),
    "laplace": (lambda a, b: dist.Laplace(a, b), 1e-9),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_quadrature_gives_minus_the_divergence_and_its_gradient(family):
    make, tolerance = FAMILIES[family]
    params = [_t(0.9), _t(1.3)]
    p = make(_t(1.4), _t(0.8))

    def program(fn):
        return lambda: pyro.sample("z", fn)

    found, right = exact.elbo(program(p), program(make(*params))), -kl_divergence(make(*params), p)
    assert abs(found - right) < tolerance * 10
    grads = exact.gradient(program(p), program(make(*params)), params=params)
    expected = torch.autograd.grad(right, params, materialize_grads=True)
    assert all(abs(a - b) < tolerance * 100 for a, b in zip(grads, expected, strict=True))


def test_laplace_quadrature_is_exact_where_the_kinks_coincide():
    q, p = dist.Laplace(_t(0.5), _t(1.3)), dist.Laplace(_t(0.5), _t(0.8))
    found = exact.elbo(lambda: pyro.sample("z", p), lambda: pyro.sample("z", q))
    assert abs(found + kl_divergence(q, p)) < 1e-12


def _observed(prior, likelihood, x):
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", prior)
        pyro.sample("x", likelihood(z), obs=x)


def _guided(q, x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", q)


CONJUGATE = {
    "gamma-poisson": (
        dist.Gamma(_t(2.0), _t(1.0)),
        dist.Poisson,
        dist.Gamma(_t(2.4), _t(1.3)),
        lambda x: dist.NegativeBinomial(_t(2.0), probs=_t(0.5)).log_prob(x),
    ),
    "beta-bernoulli": (
        dist.Beta(_t(2.0), _t(3.0)),
        dist.Bernoulli,
        dist.Beta(_t(1.5), _t(1.5)),
        lambda x: dist.Bernoulli(_t(0.4)).log_prob(x),
    ),
    "normal-normal": (
        dist.Normal(_t(0.0), _t(1.0)),
        lambda z: dist.Normal(z, 2.0),
        dist.Normal(_t(0.3), _t(0.9)),
        lambda x: dist.Normal(_t(0.0), math.sqrt(5)).log_prob(x),
    ),
}


@pytest.mark.parametrize("name", CONJUGATE)
def test_quadrature_gives_the_evidence_of_conjugate_pairs(name):
    prior, likelihood, q, log_p = CONJUGATE[name]
    x = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    found = exact.log_evidence(lambda x: _observed(prior, likelihood, x), lambda x: _guided(q, x), x)
    assert (found - log_p(x)).abs().max() < 1e-8


def test_a_bit_times_a_normal_is_the_mixture_of_two_closed_forms():
    logit, slope, spread = _t(0.3), _t([0.5, -0.7]), _t([0.6, 1.2])
    x = torch.tensor([0.4, -1.0], dtype=torch.float64)

    def model(x):
        with pyro.plate("data", 2, dim=-1):
            b = pyro.sample("b", dist.Bernoulli(torch.tensor(0.3, dtype=x.dtype)))
            z = pyro.sample("z", dist.Normal(b, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", 2, dim=-1):
            b = pyro.sample("b", dist.Bernoulli(logits=logit + x))
            pyro.sample("z", dist.Normal(slope[b.long()] * x, spread[b.long()]))

    total = torch.zeros((), dtype=torch.float64)
    for b, prior in ((0, 0.7), (1, 0.3)):
        chance = torch.sigmoid((logit + x) * (1 if b else -1))
        q = dist.Normal(slope[b] * x, spread[b])
        fit = dist.Normal(q.mean, 0.5).log_prob(x) - 0.5 * (q.stddev / 0.5) ** 2
        total = total + (chance * (math.log(prior) - chance.log() + fit - kl_divergence(q, dist.Normal(b, 1.0)))).sum()
    params = [logit, slope, spread]
    assert abs(exact.elbo(model, guide, x) - total) < 1e-11
    found, right = exact.gradient(model, guide, x, params=params), torch.autograd.grad(total, params)
    assert all((a - b).abs().max() < 1e-11 for a, b in zip(found, right, strict=True))


class LinearGaussian:
    """z ~ N(0, I), x | z ~ N(W z + b, s² I), q = N(A x + c, L Lᵀ) with full or diagonal L, plate scale 3."""

    def __init__(self, full):
        p = {
            "W": torch.randn(4, 3),
            "b": torch.randn(4),
            "s": torch.tensor(0.7),
            "A": torch.randn(3, 4),
            "c": torch.randn(3),
            "L": torch.randn(3, 3) * 0.5 + torch.eye(3),
        }
        self.full = full
        self.p = {name: value.double().requires_grad_() for name, value in p.items()}
        self.x = torch.randn(5, 4, dtype=torch.float64)

    def tril(self):
        return self.p["L"].tril() if self.full else self.p["L"].diagonal().diag()

    def model(self, x):
        p = self.p
        with pyro.plate("data", 3 * len(x), subsample_size=len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(p["c"]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ p["W"].T + p["b"], p["s"]).to_event(1), obs=x)

    def guide(self, x):
        p = self.p
        mean = x @ p["A"].T + p["c"]
        with pyro.plate("data", 3 * len(x), subsample_size=len(x), dim=-1):
            pyro.sample(
                "z",
                dist.MultivariateNormal(mean, scale_tril=self.tril())
                if self.full
                else dist.Normal(mean, self.tril().diagonal()).to_event(1),
            )

    def log_evidence(self):
        p = self.p
        cov = p["W"] @ p["W"].T + p["s"] ** 2 * torch.eye(4, dtype=torch.float64)
        return dist.MultivariateNormal(p["b"], covariance_matrix=cov).log_prob(self.x)

    def elbo(self):
        p = self.p
        mean = self.x @ p["A"].T + p["c"]
        prior = dist.MultivariateNormal(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
        fit = dist.Normal(mean @ p["W"].T + p["b"], p["s"]).log_prob(self.x).sum(-1)
        fit = fit - 0.5 * ((p["W"] @ self.tril()) ** 2).sum() / p["s"] ** 2
        return 3 * (fit - kl_divergence(dist.MultivariateNormal(mean, scale_tril=self.tril()), prior)).sum()


@pytest.mark.parametrize("full", [0, 1], ids=["diagonal", "full"])
def test_linear_gaussian_closed_forms_are_those_of_matrix_algebra(full):
    case = LinearGaussian(full)
    pair = (case.model, case.guide, case.x)
    assert (gaussian.log_evidence(*pair) - case.log_evidence()).abs().max() < 1e-11
    assert abs(gaussian.elbo(*pair) - case.elbo()) < 1e-9
    params = list(case.p.values())
    for of, right in ((gaussian.elbo, case.elbo()), (gaussian.log_evidence, case.log_evidence().sum())):
        expected = torch.autograd.grad(right, params, allow_unused=True)
        for found, grad in zip(exact.gradient(*pair, params=params, of=of), expected, strict=True):
            assert grad is None or (found - grad).abs().max() < 1e-9 * (1 + grad.abs().max())


def test_at_the_exact_posterior_the_elbo_is_the_evidence():
    case = LinearGaussian(full=1)
    posterior = gaussian.posterior(case.model, case.guide, case.x)

    def guide(x):
        with pyro.plate("data", 3 * len(x), subsample_size=len(x), dim=-1):
            pyro.sample("z", dist.MultivariateNormal(posterior.mean, posterior.covariance_matrix))

    assert abs(gaussian.elbo(case.model, guide, case.x) - 3 * case.log_evidence().sum()) < 1e-9


def test_a_chain_of_gaussian_layers_agrees_with_quadrature():
    w = _t([0.8, -0.6, 0.5, 0.4])
    x = torch.tensor([0.3, -1.2], dtype=torch.float64)

    def model(x):
        with pyro.plate("data", 2, dim=-1):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros_like(x), 1.0))
            z1 = pyro.sample("z1", dist.Normal(w[0] * z2, 0.8))
            pyro.sample("x", dist.Normal(w[1] * z1, 0.6), obs=x)

    def guide(x):
        with pyro.plate("data", 2, dim=-1):
            z1 = pyro.sample("z1", dist.Normal(w[2] * x, 0.7))
            pyro.sample("z2", dist.Normal(w[3] * z1, 0.9))

    assert abs(gaussian.elbo(model, guide, x) - exact.elbo(model, guide, x, nodes=40)) < 1e-10
    closed, summed = gaussian.log_evidence(model, guide, x), exact.log_evidence(model, guide, x, nodes=120)
    assert (closed - summed).abs().max() < 1e-8
    spread = ((w[0] * w[1]) ** 2 + (0.8 * w[1]) ** 2 + 0.36).sqrt()
    assert (closed - dist.Normal(0.0, spread).log_prob(x)).abs().max() < 1e-10
    mask = torch.tensor([True, False])
    masked = gaussian.log_evidence(poutine.mask(model, mask=mask), guide, x)
    assert torch.allclose(masked, torch.where(mask, closed, 0.0), atol=1e-12)


def test_a_program_that_is_not_linear_gaussian_is_refused():
    def model(x):
        with pyro.plate("data", 2, dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
            pyro.sample("x", dist.Normal(z.tanh(), 1.0), obs=x)

    with pytest.raises(UsageError, match=r"log p\(x, z\) is not quadratic"):
        gaussian.elbo(model, lambda x: _guided(dist.Normal(0.0, 1.0), x), torch.zeros(2, dtype=torch.float64))


def test_a_program_that_does_not_broadcast_is_refused_in_one_line():
    def model(x):
        with pyro.plate("data", 2, dim=-1):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z.reshape(2), 1.0), obs=x)

    with pytest.raises(UsageError, match="does not broadcast over a leading dimension of rows"):
        exact.elbo(model, lambda x: _guided(dist.Bernoulli(0.5), x), torch.zeros(2))
