"""Twenty-eight planted faults, each of which the proof must catch: the mistakes that estimators are written with.

A fault is a subclass of a right estimator, or of the engine, that is wrong in one place.  "Caught" means that the test
of proof_statistics.py (N = 40 000) fails; beside each, the right version passes in test_proof.py.
"""

import pytest
import torch
from proof_programs import Program
from proof_statistics import N, exact_gradient, prove
from pyro.distributions.score_parts import ScoreParts

from pathscore.elbos import rows as rows_module
from pathscore.elbos.site import SiteELBO
from pathscore.estimators import (
    ARM,
    REBAR,
    RELAX,
    RLOO,
    Baseline,
    DeltaMethod,
    DiSARM,
    Enumerate,
    LocalExpectation,
    MeasureValued,
    MuProp,
    Pathwise,
    Score,
    StickingTheLanding,
    SumAndSample,
    UnorderedSet,
    antithetic,
    coupling,
    measure_valued,
)
from pathscore.estimators.delta import expansion
from pathscore.estimators.families import unwrap
from pathscore.estimators.relaxation import relaxation_of


class WrongSign(Score):
    def surrogate(self, site):
        return -super().surrogate(site)


class FactorTwo(DiSARM):
    def coefficient(self, u, bits, partner, logits):
        return 2 * super().coefficient(u, bits, partner, logits)


class MissingDetach(MuProp):
    def surrogate(self, site):
        mean = site.branch[0]
        signal = site.cost[0] - site.cost[1] - site.over_event(site.slope[0] * (site.value - mean))
        return signal * site.log_q + site.over_event(site.slope[0] * mean)


class WrongAxis(LocalExpectation):
    def surrogate(self, site):
        costs = site.cost[1:].reshape(*site.cost.shape[1:], *site.fn.event_shape)
        costs = (costs - site.per_element(site.cost[0])) * (1 - 2 * site.value)
        return site.over_event(costs * unwrap(site.fn).probs)


class SharedNoise(DiSARM):
    """Every layer reuses the first layer's uniforms."""

    noise = None

    def sample(self, fn):
        value, (u, *_) = super().sample(fn)
        first = type(self).noise
        if first is None or first.shape[1:] != u.shape[1:]:
            first = type(self).noise = u
        u = torch.cat([first, u[len(first) :]])  # later layers draw more rows than the first
        bits, partner = self.pair(torch.sigmoid(unwrap(fn).logits.detach()), u)
        return bits.to(value), (u, bits, partner)


class ControlIgnoresTheta(RELAX):
    """∂z̃/∂θ left out."""

    def pair(self, fn, value, noise):
        logits = unwrap(fn).logits
        return logits + noise[0], relaxation_of(fn).conditional(logits.detach(), value, noise[1])


class SawItsSample(Baseline):
    def forward(self, site):
        return site.cost[0].mean(0, keepdim=True).expand_as(site.cost[0])


class HalfMinusU(ARM):
    def coefficient(self, u, bits, partner, logits):
        return u - 0.5


class IndependentPair(DiSARM):
    def pair(self, probs, u):
        bits, _ = super().pair(probs, u)
        other = torch.rand(u.shape, generator=torch.Generator().manual_seed(7), dtype=u.dtype)
        return bits, (other < probs).to(bits)


class ForgetsAValue(Enumerate):
    def surrogate(self, site):
        return (self.probabilities(site) * site.cost[1:])[1:].sum(0)


class NoEntropy(StickingTheLanding):
    def score_parts(self, fn, value):
        return ScoreParts(fn.log_prob(value), 0.0, 0.0)


class CutPath(Pathwise):
    def sample(self, fn):
        return fn.rsample().detach(), None


class DoubleEntropy(Pathwise):
    def score_parts(self, fn, value):
        log_q, score, entropy = super().score_parts(fn, value)
        return ScoreParts(log_q, score, 2 * entropy)


class ControlAtZ(REBAR):
    """z itself in place of z̃ ~ z | b."""

    def pair(self, fn, value, noise):
        z = unwrap(fn).logits + noise[0]
        return z, z


class EtaOnOneSide(REBAR):
    def surrogate(self, site):
        live = {name: p.detach() for name, p in self.named_parameters()}
        path = self._estimate(site, live | {"eta": torch.zeros_like(self.eta)})
        return path - live["eta"] * site.cost[2] * self.log_prob(site.fn, site.value)


class CountsRelaxedRows(REBAR):
    """Relaxed rows averaged into the bound, as if they were draws from q."""

    def weights(self, site):
        return torch.full((3, *[1] * (site.cost.ndim - 1)), 1 / 3)


class NoDownstreamScore(SiteELBO):
    """The slope of a counterfactual row stops at values drawn afresh downstream."""

    def _slopes(self, plan, draws, terms):
        kept, terms.scores = terms.scores, {}
        slopes = super()._slopes(plan, draws, terms)
        terms.scores = kept
        return slopes


class ForgetsLogQ(SiteELBO):
    """A site's cost without its own −log q."""

    def cost(self, terms, name):
        own = next(t for t in terms.terms if t.key == ("q", name))
        return super().cost(terms, name) - own.value.detach()


class ScaledScore(Score):
    """The subsampling scale on the score function, beside the one on the costs."""

    def surrogate(self, site):
        return 2 * super().surrogate(site)


class NoMeanOfTheTaylorTerms(DeltaMethod):
    """The control variate is taken off and its mean is not given back."""

    def surrogate(self, site):
        return super().surrogate(site) - self.weight() * expansion(site).mean


class MiddlesOfTheStrata(Pathwise):
    """Each particle in the middle of its slice, in place of anywhere in it."""

    def sample(self, fn):
        return coupling.draw(fn, lambda u: coupling.stratified(torch.full_like(u, 0.5)), self.particles), None


class EqualWeights(UnorderedSet):
    """1/k for each value of a set, in place of the chance that it was the first."""

    def weights(self, site):
        return torch.full_like(super().weights(site), 1 / len(site.cost))


class BaselineSawTheOrder(UnorderedSet):
    """Σ_t W(t) f(t) for every s, its own value among them."""

    def baselines(self, site):
        return (self.weights(site) * site.cost).sum(0)


class BaselineSawTheDraw(SumAndSample):
    """The mean over all k values, r among them, as the baseline."""

    def summed(self, site):
        return torch.ones_like(super().summed(site))

    def weights(self, site):
        left = torch.logaddexp(self.log_p(site).detach(), self.others(site))
        return torch.where(super().summed(site), self.log_p(site).detach(), left).exp()


class UnshiftedSobol(Pathwise):
    """The points of the sequence themselves, the same in every step."""

    def sample(self, fn):
        return coupling.draw(fn, lambda u: coupling.sobol(torch.zeros_like(u)).expand_as(u), self.particles), None


ESTIMATOR_FAULTS = {
    "wrong sign": (WrongSign, "bernoulli", "one"),
    "factor two": (FactorTwo, "bernoulli", "one"),
    "missing detach": (MissingDetach, "bernoulli", "one"),
    "wrong axis": (WrongAxis, "bernoulli", "one"),
    "noise shared between layers": (SharedNoise, "bernoulli", "two"),
    "control variate without ∂z̃/∂θ": (ControlIgnoresTheta, "bernoulli", "one"),
    "baseline that saw its sample": (lambda: Score(SawItsSample()), "bernoulli", "one"),
    "½ − u the wrong way round": (HalfMinusU, "bernoulli", "one"),
    "pair that is not antithetic": (IndependentPair, "bernoulli", "one"),
    "sum that forgets a value": (ForgetsAValue, "onehot", "one"),
    "no entropy": (NoEntropy, "normal", "one"),
    "value detached": (CutPath, "normal", "one"),
    "entropy counted twice": (DoubleEntropy, "normal", "one"),
    "control variate at z, not z̃": (ControlAtZ, "bernoulli", "one"),
    "η on one side only": (EtaOnOneSide, "bernoulli", "one"),
    "relaxed rows counted as draws": (CountsRelaxedRows, "bernoulli", "mixed"),
    "control variate without its mean": (NoMeanOfTheTaylorTerms, "normal", "one"),
    "strata without their uniform": (MiddlesOfTheStrata, "normal", "one"),
    "values of a set weighted alike": (lambda: EqualWeights(k=2), "categorical", "one"),
    "baseline of a set with its own value": (lambda: BaselineSawTheOrder(k=2), "categorical", "one"),
    "baseline that saw the sampled class": (lambda: BaselineSawTheDraw(k=2), "categorical", "one"),
    "Sobol's points not shifted": (UnshiftedSobol, "normal", "one"),
    "scale applied twice": (ScaledScore, "bernoulli", "subsampled"),
}


pytestmark = pytest.mark.usefixtures("float64")


def caught(elbo: SiteELBO, family: str, shape: str) -> bool:
    program = Program(shape, family, N)
    verdict = prove(program, elbo, target=exact_gradient(Program(shape, family)))
    print(f"N={N}, {verdict}")
    return not verdict.passes


@pytest.mark.parametrize("fault", ESTIMATOR_FAULTS)
def test_estimator_fault_is_caught(fault):
    make, family, shape = ESTIMATOR_FAULTS[fault]
    SharedNoise.noise = None
    assert caught(SiteELBO({"z*": make()}, num_particles=2), family, shape)


@pytest.mark.parametrize("elbo", [NoDownstreamScore, ForgetsLogQ])
def test_engine_fault_is_caught(elbo):
    assert caught(elbo({"z*": "rebar" if elbo is NoDownstreamScore else "rloo"}, num_particles=2), "bernoulli", "two")


def test_downstream_copied_instead_of_drawn_is_caught(monkeypatch):
    """The counterfactual rows of z1 keep the old z2, which was drawn given the old z1."""
    draw = rows_module.RowSampler._draw

    def copies(self, site, fn):
        made = draw(self, site, fn)
        for name, rows in self.plan.slices.items():
            if self.plan.order[name] < self.plan.order[site.name]:
                made.value[rows] = made.value[: self.plan.particles].repeat(self.plan.sites[name].rows, 1, 1)
        return made

    monkeypatch.setattr(rows_module.RowSampler, "_draw", copies)
    assert caught(SiteELBO({"z*": "disarm"}, num_particles=2), "bernoulli", "two")


def test_upstream_drawn_instead_of_copied_is_caught(monkeypatch):
    """The counterfactual rows of z2 get a new z1, to which their coupled value does not belong."""
    monkeypatch.setattr(
        rows_module, "_repeat", lambda base, times: torch.rand(times * len(base), *base.shape[1:]).round()
    )
    assert caught(SiteELBO({"z*": "disarm"}, num_particles=2), "bernoulli", "two")


def test_credit_without_later_draws_is_caught(monkeypatch):
    """Credit without later draws: z1 is not charged for what z2 does next, nor for what a step sees of it."""
    from pathscore.elbos import plan

    found = plan.dependence

    def without(*args):
        depends, lost = found(*args)
        return {term: sites - {"z1"} if "z2" in sites else sites for term, sites in depends.items()}, lost

    monkeypatch.setattr(plan, "dependence", without)
    monkeypatch.setattr(plan.Plan, "widen", lambda self, seen, guide_trace: None)
    assert caught(SiteELBO({"z*": "score"}, num_particles=2, credit="graph"), "bernoulli", "two")


def test_stick_that_counts_itself_is_caught(monkeypatch):
    def wrong(logits):
        tail = torch.logcumsumexp(logits.flip(-1), -1).flip(-1)
        return logits[..., :-1] - tail[..., :-1]

    monkeypatch.setattr(antithetic, "stick_logits", wrong)
    assert caught(SiteELBO({"z*": "disarm"}, num_particles=2), "categorical", "one")


@pytest.mark.parametrize(("index", "power"), [(0, 0.5), (1, 2.0)])
def test_wrong_constant_of_a_weak_derivative_is_caught(monkeypatch, index, power):
    """1/(σ√π) for the mean, 1/σ² for the scale."""
    right = measure_valued.DERIVATIVES["normal"]
    wrong = list(right)
    kept = right[index]
    constants = [lambda fn: kept.constant(fn) * 2**0.5, lambda fn: kept.constant(fn) / fn.scale]
    wrong[index] = measure_valued.Derivative(kept.parameter, constants[index], kept.pair)
    monkeypatch.setitem(measure_valued.DERIVATIVES, "normal", tuple(wrong))
    assert caught(SiteELBO({"z*": MeasureValued()}, num_particles=2), "normal", "one")


def test_rloo_itself_passes_beside_its_fault():
    assert not caught(SiteELBO({"z*": RLOO()}, num_particles=2), "bernoulli", "one")
