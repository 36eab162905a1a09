"""Coupled particles: each keeps its law, the rows of other sites are coupled among themselves, and where it is refused.

The proof itself (bias, two layers, masks, plates, compiled) is test_proof.py; here are the laws of single particles and
the variance. N = 20 000 draws: a Kolmogorov–Smirnov test at p < 1e-5 sees a distribution function that is off by .018.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from proof_programs import Program
from proof_statistics import N as PROOF_N
from proof_statistics import exact_gradient, prove
from scipy.stats import kstest

import pathscore
from pathscore import UsageError, make_elbo
from pathscore.elbos.site import SiteELBO
from pathscore.estimators import make_estimator
from pathscore.estimators.coupling import DRAWS, draw
from pathscore.gradients.results import variance_ratio
from pathscore.gradients.toy import make_toy

pytestmark = pytest.mark.usefixtures("float64")

N, SMALLEST_P = 20_000, 1e-5
LAWS = {
    "normal": lambda: dist.Normal(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.3])).to_event(1),
    "laplace": lambda: dist.Laplace(torch.zeros(2), 1.0).to_event(1),
    "lognormal": lambda: dist.LogNormal(torch.zeros(2), 0.5).to_event(1),
    "full normal": lambda: dist.MultivariateNormal(
        torch.zeros(2), scale_tril=torch.tensor([[1.0, 0.0], [0.7, 0.5]], dtype=torch.float64)
    ),
    "half normal": lambda: dist.HalfNormal(torch.ones(2)).to_event(1),
    "flow": lambda: dist.TransformedDistribution(
        dist.Normal(torch.zeros(2), 1.0).to_event(1), [dist.transforms.Planar(2)]
    ),
}


def law_of_particles(drawn, reference, particles):
    """The smallest p of every particle's coordinates against independent draws."""
    rows = drawn.unflatten(0, (-1, particles)).flatten(0, 1) if particles != len(drawn) else drawn
    return min(kstest(row[:, d].numpy(), reference[:, d].numpy()).pvalue for row in rows for d in range(row.shape[-1]))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("draws", DRAWS)
def test_each_particle_keeps_its_law(draws, law):
    """Base rows and the counterfactual rows of another site, 3 particles each, N members of a plate."""
    torch.manual_seed(0)
    fn = LAWS[law]().expand([6, N])
    with torch.no_grad():
        drawn = draw(fn, DRAWS[draws], particles=3)
        assert law_of_particles(drawn, fn.sample()[0], 3) > SMALLEST_P


def test_a_particle_that_stays_in_its_slice_is_caught():
    """Planted: slice k for particle k, without a permutation. Their mean over particles stays right, each law not."""
    torch.manual_seed(0)
    fn = LAWS["normal"]().expand([3, N])
    drawn = draw(fn, lambda u: (torch.arange(3.0)[:, None, None, None] + u) / 3, particles=3)
    assert law_of_particles(drawn, fn.sample()[0], 3) < SMALLEST_P


def test_the_particles_fill_their_slices():
    """Of 8 particles, 1 in each eighth of every coordinate: drawn once, and in each block of rows."""
    fn = dist.Uniform(torch.zeros(16, 5, 3), 1.0).to_event(1)
    for draws in ("stratified", "sobol"):
        slices = (8 * draw(fn, DRAWS[draws], particles=8)).long().unflatten(0, (2, 8))
        assert (slices.sort(1).values == torch.arange(8)[None, :, None, None]).all()


def one_bit_then_a_normal():
    def guide():
        b = pyro.sample("b", dist.Bernoulli(0.6))
        pyro.sample("z", dist.Normal(b, 0.5))

    def model():
        b = pyro.sample("b", dist.Bernoulli(0.4))
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(torch.tanh(2 * z) - b, 0.5), obs=torch.tensor(0.8))

    return model, guide


@pytest.mark.parametrize("draws", DRAWS)
def test_rows_of_another_site_are_unbiased(draws):
    """Bits under `disarm` between two coupled normal sites, whose rows are coupled too (proof_statistics.py)."""
    spec = {"z": "disarm", "n*": f"pathwise(draws={draws})"}
    program = Program("mixed", "bernoulli", PROOF_N)
    verdict = prove(program, SiteELBO(spec, num_particles=2), target=exact_gradient(Program("mixed", "bernoulli")))
    assert verdict.passes, verdict


def test_stratified_draws_cut_the_variance():
    """Sixteen particles on the normal toy: half the variance or less (99 %), same evaluations."""
    toy = make_toy("normal")
    specs = ["pathwise", "pathwise(draws=stratified)"]
    found = pathscore.measure(toy.model, toy.guide, estimators=specs, particles=16, replicates=4000)
    plain, coupled = (found[spec] for spec in specs)
    assert variance_ratio(plain, coupled)[0] > 2
    assert coupled.evaluations == plain.evaluations


def comparing():
    model, guide = one_bit_then_a_normal()
    SiteELBO("b=rloo,z=pathwise(draws=sobol)", num_particles=4).prepare(model, guide)


def weighted():
    model, guide = one_bit_then_a_normal()
    make_elbo("iwae", "b=disarm,z=pathwise(draws=sobol)", 4).prepare(model, guide)


def pass_by_pass():
    model, guide = one_bit_then_a_normal()
    SiteELBO("z=stl(draws=sobol)", num_particles=4, vectorize_particles=False).prepare(model, guide)


REFUSED = {
    "one particle": (
        lambda: SiteELBO("z=pathwise(draws=sobol)").prepare(*one_bit_then_a_normal()),
        r"pathwise\(draws=sobol\) needs --particles 2",
    ),
    "no quantiles": (
        lambda: (_ for _ in ()).throw(
            UsageError(make_estimator("stl(draws=stratified)").refusal(dist.Gamma(1.0, 1.0), 4))
        ),
        "gamma has no quantile function for draws=stratified: use stl",
    ),
    "comparing particles": (comparing, "rloo at site 'b' compares particles .* leave draws= out, or use score-avg"),
    "importance weights": (weighted, "independent particles, .* use --elbo trace"),
    "pass by pass": (
        pass_by_pass,
        "draws= at site 'z' couples particles in one pass: leave draws= out",
    ),
    "a misspelt word": (lambda: make_estimator("pathwise(draws=stratfied)"), "did you mean 'stratified'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_remedy(case):
    make, words = REFUSED[case]
    with pytest.raises(UsageError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
