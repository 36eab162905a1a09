"""The proof: every estimator against the exact gradient, on every legal family, shape of program and credit.

Generated from `ESTIMATORS` and `VARIANTS`, entries with options: a new entry is proved without a new test.  Unbiased
ones must pass (see
proof_statistics.py: N = 40 000, |z| ≤ 4.5, Hotelling p ≥ 1e-4), biased ones must be detected as biased.  The default
run proves every estimator on two layers of its first legal family; `pytest -m proof` runs all of it.
"""

from functools import cache

import pytest
import torch
from proof_programs import KINDS, Program
from proof_statistics import N, exact_gradient, prove

from pathscore.compiling.compiled_elbo import CompiledELBO
from pathscore.elbos.site import SiteELBO
from pathscore.estimators import ESTIMATORS, Estimator, make_estimator

PARTICLES = 2
SHAPES = {
    "bernoulli": ("one", "two", "mixed", "subsampled", "masked", "nested"),
    "onehot": ("one", "two", "nested"),
    "categorical": ("one", "two"),
    "normal": ("one", "two", "subsampled", "masked", "nested"),
    "poisson": ("one", "two"),
    "gamma": ("one", "two"),
}
VARIANTS = (
    *(f"pathwise(draws={draws})" for draws in ("stratified", "antithetic", "sobol")),
    *("stl(draws=stratified)", "stl(draws=sobol)", "unordered(k=2)", "sum-and-sample(k=2)"),
)
"""Options that change an estimate and not what it is an estimate of."""
SMALL_NETS = {"nvil": "nvil(hidden=8)", "relax": "relax(hidden=8)"}  # the claim does not depend on their width


def legal(name: str, family: str) -> bool:
    kind = KINDS[family]
    fn = kind.make(**{n: torch.zeros(s) for n, s in kind.parameters.items()})
    estimator = estimator_of(name)
    return not (estimator.relaxed and family == "categorical") and estimator.refusal(fn, PARTICLES) is None


def estimator_of(name: str) -> Estimator:
    return make_estimator(SMALL_NETS.get(name, name))


OWN = ("flipout", "local-reparameterisation")
"""Estimators of the weights of layers, which these programs do not have: test_weight_noise.py."""
NAMES = [*(name for name in ESTIMATORS if name not in ("auto", *OWN)), *VARIANTS]
LEGAL = [(name, family) for name in NAMES for family in KINDS if legal(name, family)]
CASES = [(n, f, shape, credit) for n, f in LEGAL for shape in SHAPES[f] for credit in ("plate", "graph")]
FIRST = dict(reversed(LEGAL))


pytestmark = pytest.mark.usefixtures("float64")


@cache
def target(shape: str, family: str) -> torch.Tensor:
    return exact_gradient(Program(shape, family))


def elbo_of(name: str, shape: str, credit: str) -> SiteELBO:
    spec = {"z*": SMALL_NETS.get(name, name)}
    if shape == "nested":  # the global site shares the estimator wherever it may
        spec["g"] = spec["z*"] if legal(name, "bernoulli") else "score"
    elbo = SiteELBO(spec, num_particles=PARTICLES, credit=credit)
    return elbo


def randomise(elbo: SiteELBO, program: Program) -> SiteELBO:
    """Learned parts start where they do nothing; unbiasedness must hold for any value of them."""
    elbo.prepare(program.model, program.guide)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in elbo.estimators.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return elbo


def check(name: str, family: str, shape: str, credit: str, compiled: bool = False) -> None:
    program = Program(shape, family, N)
    elbo = randomise(elbo_of(name, shape, credit), program)
    if compiled:
        elbo = CompiledELBO(elbo)
    verdict = prove(program, elbo, target=target(shape, family))
    assert not compiled or elbo.built, elbo.refused
    print(f"{name} {family} {shape} {credit}: N={N}, {verdict}")
    if estimator_of(name).unbiased:
        assert verdict.passes, verdict
    else:
        assert verdict.max_z > 4, f"{name} is labelled biased, and no bias shows: {verdict}"


@pytest.mark.parametrize("name", NAMES)
def test_representative(name):
    check(name, FIRST[name], "two", "plate")


@pytest.mark.parametrize("name", ["gumbel", "rloo"])
def test_a_wrong_label_is_caught(name, monkeypatch):
    """Planted: a biased estimator that calls itself unbiased, and an unbiased one that calls itself biased."""
    monkeypatch.setattr(ESTIMATORS[name], "unbiased", not ESTIMATORS[name].unbiased)
    with pytest.raises(AssertionError):
        check(name, FIRST[name], "two", "plate")


@pytest.mark.proof
@pytest.mark.parametrize(("name", "family", "shape", "credit"), CASES)
def test_all(name, family, shape, credit):
    check(name, family, shape, credit)


@pytest.mark.parametrize("name", [n if n == "disarm" else pytest.param(n, marks=pytest.mark.proof) for n in NAMES])
def test_compiled(name):
    """The same through TorchInductor's code, on two layers of the estimator's first family."""
    check(name, FIRST[name], "two", "plate", compiled=True)


def test_cold_gumbel_is_less_biased():
    """The bias of the relaxation shrinks with its temperature: 1, .5, .1 (N = 40 000)."""
    exact = target("one", "bernoulli")
    biases = []
    for temperature in (1.0, 0.5, 0.1):
        program = Program("one", "bernoulli", N)
        elbo = SiteELBO(f"gumbel(temperature={temperature})", num_particles=PARTICLES)
        torch.manual_seed(0)
        elbo.loss_and_grads(program.model, program.guide)
        biases.append((-program.parameters["z.logits"].grad.mean(0) - exact).norm().item())
    assert biases[0] > biases[1] > biases[2], biases
