"""Counterfactual rows bring no noise of their own: what does not depend on a row's site is no part of its cost.

A row draws later sites anew. With every term credited to the site (credit by plate), the draws of unrelated sites are
noise: 335 where the exact sum has none. Here each estimator that asks for rows, on programs with sites that depend on
the bit and sites that do not, has under credit by plate the variance that it has under credit by dependency, and the
exact mean: N = 20 000 replicates, |z| ≤ 4.5 (false-alarm rate 7e-6 a test; a bias of 6 standard errors is found with
probability above 0.93).
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from proof_statistics import judge

from pathscore import exact, make_elbo
from pathscore.elbos.importance import ImportanceELBO
from pathscore.elbos.plan import Plan
from pathscore.elbos.site import SiteELBO

N = 20_000
ESTIMATORS = ("enum", "local", "arm", "disarm", "rebar", "relax(hidden=4)", "muprop", "measure-valued")

pytestmark = pytest.mark.usefixtures("float64")


class Case:
    """n replicates of a program with the bit b: `logit` is the leaf (n,), by which the gradient is taken."""

    nested = False

    def __init__(self, n: int = 1) -> None:
        self.n = n
        self.logit = torch.full((n,), 0.4).requires_grad_()

    def plate(self):
        return pyro.plate("replicates", self.n, dim=-2 if self.nested else -1)

    def column(self, t):
        return t[:, None] if self.nested else t

    def model(self):
        with self.plate():
            b = pyro.sample("b", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(b, 1.0), obs=torch.tensor(0.7))
            self.rest(b)

    def guide(self):
        with self.plate():
            b = pyro.sample("b", dist.Bernoulli(logits=self.column(self.logit)))
            self.rest_of_guide(b)


class Beside(Case):
    """A Normal that does not depend on the bit, with a sharp observation of its own."""

    def rest(self, b):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 0.1), obs=torch.tensor(2.0))

    def rest_of_guide(self, b):
        pyro.sample("z", dist.Normal(0.5, 0.5))


class Masked(Beside):
    """The same, scaled and masked."""

    def rest(self, b):
        with pyro.poutine.scale(scale=3.0), pyro.poutine.mask(mask=torch.arange(self.n) % 2 == 0):
            super().rest(b)

    def rest_of_guide(self, b):
        with pyro.poutine.scale(scale=3.0), pyro.poutine.mask(mask=torch.arange(self.n) % 2 == 0):
            super().rest_of_guide(b)


class Layers(Case):
    """A second bit that depends on the first, and one that does not."""

    def rest(self, b):
        c = pyro.sample("c", dist.Bernoulli(0.2 + 0.5 * b))
        d = pyro.sample("d", dist.Bernoulli(0.6))
        pyro.sample("y", dist.Normal(c, 0.5), obs=torch.tensor(0.4))
        pyro.sample("w", dist.Normal(d, 0.1), obs=torch.tensor(1.5))

    def rest_of_guide(self, b):
        pyro.sample("c", dist.Bernoulli(logits=b - 0.3))
        pyro.sample("d", dist.Bernoulli(0.5))


class Nested(Case):
    """Two Normals in a plate inside, one of them given the bit."""

    nested = True

    def rest(self, b):
        with pyro.plate("inner", 2, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            u = pyro.sample("u", dist.Normal(b, 1.0))
            pyro.sample("y", dist.Normal(z, 0.1), obs=torch.tensor(2.0))
            pyro.sample("v", dist.Normal(u, 1.0), obs=torch.tensor(-0.5))

    def rest_of_guide(self, b):
        with pyro.plate("inner", 2, dim=-1):
            pyro.sample("z", dist.Normal(0.5, 0.5))
            pyro.sample("u", dist.Normal(0.5 * b, 0.8))


class SemiSupervised(Case):
    """An unlabelled point (b, z given b) and a labelled one (zl) that shares nothing with it."""

    def rest(self, b):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        zl = pyro.sample("zl", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z + b, 0.3), obs=torch.tensor(1.0))
        pyro.sample("yl", dist.Normal(zl + 1, 0.1), obs=torch.tensor(2.5))

    def rest_of_guide(self, b):
        pyro.sample("z", dist.Normal(0.2 + 0.1 * b, 0.4))
        pyro.sample("zl", dist.Normal(0.4, 0.5))


CASES = {cls.__name__: cls for cls in (Beside, Masked, Layers, Nested, SemiSupervised)}


def spec_of(name: str) -> dict[str, str]:
    return {"b": name, "c": "score", "d": "score", "z*": "pathwise", "u": "pathwise"}


def gradients(case: Case, elbo: SiteELBO) -> torch.Tensor:
    """(n, 1) gradients by the logit; the second step has warm averages."""
    for _ in range(2):
        case.logit.grad = None
        torch.manual_seed(1)
        elbo.loss_and_grads(case.model, case.guide)
    return -case.logit.grad[:, None]


def present(cls: type[Case], name: str, **options) -> SiteELBO:
    sites = {"Layers": "bcd", "Nested": "bzu"}.get(cls.__name__, "bz")
    spec = {key: value for key, value in spec_of(name).items() if key[0] in sites}
    return SiteELBO(spec, num_particles=2, **options)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("case", CASES)
def test_credit_by_plate_has_the_mean_and_the_variance_of_credit_by_dependency(case, name):
    cls = CASES[case]
    plate, graph = (gradients(cls(N), present(cls, name, credit=credit)) for credit in ("plate", "graph"))
    assert plate.var() <= 1.0001 * graph.var() + 1e-20, (plate.var(), graph.var())
    if case != "Masked":  # the even replicates have the terms, the odd ones lack them: means of both are the same
        one = cls()
        (target,) = exact.gradient(one.model, one.guide, params=[one.logit], nodes=40)
        verdict = judge(plate, target.flatten())
        assert verdict.passes, verdict


def test_the_masked_replicates_agree():
    """The bit's exact gradient does not know of the masked site: even and odd replicates have one mean."""
    found = gradients(Masked(N), present(Masked, "disarm"))
    one = Beside()
    (target,) = exact.gradient(one.model, one.guide, params=[one.logit], nodes=40)
    assert judge(found[::2], target.flatten()).passes and judge(found[1::2], target.flatten()).passes


@pytest.mark.parametrize("name", ["enum", "local", "disarm", "measure-valued"])
def test_rows_that_are_charged_for_everything_are_caught(monkeypatch, name):
    """Planted: every term credited to the site of a row. The variance is at least 100 times that by dependency."""
    graph = gradients(Beside(N), present(Beside, name, credit="graph"))
    monkeypatch.setattr(Plan, "credit", lambda self, site: self.depends)
    plate = gradients(Beside(N), present(Beside, name, credit="plate"))
    assert plate.var() > 100 * graph.var() + 1, (plate.var(), graph.var())


@pytest.mark.parametrize("name", ["enum", "disarm", "local"])
def test_importance_weights_keep_the_draws_of_independent_sites(monkeypatch, name):
    """A bound of K particles cannot be taken apart into terms: its rows keep the base draw of independent sites."""

    def found() -> torch.Tensor:
        return gradients(Beside(N), ImportanceELBO({"b": name, "z": "pathwise"}, num_particles=3))

    kept = found()
    monkeypatch.setattr(Plan, "keep_independent", lambda self: None)
    anew = found()
    assert kept.var() * 20 < anew.var(), (kept.var(), anew.var())
    difference = (kept.mean() - anew.mean()) / (kept.var() / N + anew.var() / N).sqrt()
    assert abs(difference) < 4.5


def test_pass_by_pass_rows_bring_no_noise_either():
    elbo = {way: present(Beside, "enum", vectorize_particles=way) for way in (True, False)}
    found = {way: gradients(Beside(50), elbo[way]) for way in elbo}
    assert found[False].var() < 1e-20
    torch.testing.assert_close(found[False].mean(), found[True].mean())


@pytest.mark.parametrize("vectorize", [True, False])
def test_pass_by_pass_importance_rows_keep_independent_draws(vectorize):
    """The one row of b and its base row have one z: with a bit that moves nothing their costs are equal."""

    def model():
        pyro.sample("b", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 0.1), obs=torch.tensor(2.0))

    logit = torch.tensor(0.0).requires_grad_()

    def guide():
        pyro.sample("b", dist.Bernoulli(logits=logit))
        pyro.sample("z", dist.Normal(0.5, 0.5))

    elbo = make_elbo("vimco", {"b": "disarm", "z": "pathwise"}, 2)
    elbo.one_pass = vectorize
    elbo.loss_and_grads(model, guide)
    assert abs(logit.grad) < 1e-12


def test_explain_says_what_a_row_redraws():
    lines = present(Layers, "disarm").explain(*(getattr(Layers(3), part) for part in ("model", "guide"))).splitlines()
    assert lines[0].endswith("a row redraws") and lines[1].endswith("c") and lines[2].endswith("—")
    assert lines[-1].endswith("costs credited by plate, those of counterfactual rows by dependency")
    beside = present(Beside, "enum").explain(*(getattr(Beside(3), part) for part in ("model", "guide")))
    assert beside.splitlines()[1].endswith("nothing")
