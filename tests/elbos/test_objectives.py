"""Every objective with importance weights against its exact value and gradient, summed over all multisets of K draws.

A test draws N = 40 000 independent gradients (copies of the program on its plate), from a fixed seed, and passes with
|z| ≤ 4 in every coordinate and Hotelling's T² at p ≥ 1e-4 (proof_statistics.judge): false alarms at most P · 6.4e-5 +
1e-4 a test; a bias of 6 standard errors, 0.03 standard deviations of one gradient, is seen with probability above 0.97.
The reported bound must lie within 4 standard errors, computed from the exact distribution. Planted faults are in
test_objectives_faults.py. `-m proof` runs the whole grid.
"""

import itertools
from functools import partial

import pytest
import torch
from objective_cases import Bit, Global, Layers, Subsampled, Weighted
from objective_normals import Chain, Line, Mixed, WeightedLine
from objective_reference import MAX_Z, bound, exact_gradient, sampled_gradients, spread
from proof_statistics import judge

from pathscore.elbos import make_elbo
from pathscore.elbos.dreg import DReG
from pathscore.elbos.importance import ImportanceELBO
from pathscore.elbos.vimco import VIMCO

N = 40_000
IWAE, ARITHMETIC, OVIS = ImportanceELBO, partial(VIMCO, fill="arithmetic"), partial(VIMCO, fill="none")
RENYI = {name: partial(cls, alpha=0.5) for name, cls in (("iwae", IWAE), ("vimco", VIMCO), ("dreg", DReG))}


def agrees(case, make, K, alpha=0.0, seed=0, copies=N):
    """Value and gradient of an objective against the exact ones; the gradient's verdict."""
    program = case(copies)
    elbo = make(num_particles=K)
    elbo.prepare(program.model, program.guide)
    torch.manual_seed(seed)
    gradients, loss = sampled_gradients(program, elbo)
    single = case()
    joint = single.joint(single.single())
    value = case.scale * bound(joint, K, alpha).item()
    error = case.scale * spread(joint, K, alpha) / copies**0.5
    assert abs(-loss / copies - value) < MAX_Z * error, (-loss / copies, value, error)
    verdict = judge(gradients, exact_gradient(single, partial(bound, K=K, alpha=alpha)))
    assert verdict.passes and verdict.max_z <= MAX_Z, verdict
    return verdict


QUICK = [
    (Bit, IWAE, 2),
    (Bit, VIMCO, 5),
    (Bit, OVIS, 5),
    (Subsampled, VIMCO, 2),
    (Weighted, VIMCO, 2),
    (Layers, IWAE, 5),
    (Layers, ARITHMETIC, 5),
    (Layers, partial(VIMCO, "disarm"), 2),
    (Layers, partial(VIMCO, "z1=rebar,z2=score"), 2),
    (Layers, partial(IWAE, "enum"), 2),
    (Global, VIMCO, 2),
    (Global, partial(VIMCO, "disarm"), 2),
    (Mixed, partial(VIMCO, "b=disarm"), 2),
    (Mixed, partial(DReG, "b=rebar"), 2),
    (Line, DReG, 5),
    (Chain, DReG, 2),
    (WeightedLine, DReG, 2),
]


def label(value):
    if isinstance(value, partial):
        options = [*value.args, *value.keywords.values()]
        return "-".join([value.func.__name__, *(str(o).replace(",", "+") for o in options)])
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize(("case", "make", "K"), QUICK, ids=label)
def test_value_and_gradient(case, make, K):
    agrees(case, make, K)


@pytest.mark.parametrize("make", [VIMCO, DReG], ids=label)
def test_of_other_orders(make):
    agrees(Layers if make is VIMCO else Line, partial(make, alpha=0.5), 2, alpha=0.5)


def test_fifty_particles_on_one_bit():
    agrees(Bit, VIMCO, 50, copies=N // 2)


def test_the_reference_has_converged():
    """More nodes move the reference's gradient by less than a tenth of the smallest standard error at N, 0.005."""
    for case, K in ((Line, 5), (Chain, 2), (Mixed, 2)):
        gradients = []
        for nodes in (case.nodes, case.nodes + 3):
            single = type(case.__name__, (case,), {"nodes": nodes})()
            gradients.append(exact_gradient(single, partial(bound, K=K)))
        assert (gradients[0] - gradients[1]).abs().max() < 5e-4


DISCRETE = (Bit, Subsampled, Weighted, Layers, Global)
ESTIMATORS = (
    "score",
    "score-avg",
    "nvil",
    "arm",
    "disarm",
    "rebar",
    "relax",
    "muprop",
    "enum",
    "local",
    "measure-valued",
)


def legal(case, estimator):
    """One-at-a-time estimators are refused under weights that span an inner plate (test_objectives_refusals.py)."""
    return case is not Global or estimator not in ("enum", "local", "measure-valued")


GRID = [
    *itertools.product(DISCRETE, (IWAE, VIMCO, ARITHMETIC, OVIS), (2, 5)),
    *((c, partial(VIMCO, e), K) for c, e, K in itertools.product(DISCRETE, ESTIMATORS, (2, 5)) if legal(c, e)),
    *((Global, partial(IWAE, e), 2) for e in ("g=enum,z=disarm", "g=disarm,z=score", "g=score,z=rebar")),
    *itertools.product((Line, WeightedLine), (IWAE, DReG), (2, 5)),
    *itertools.product((Chain,), (IWAE, DReG), (2,)),
    *((Mixed, partial(cls, f"b={e}"), 2) for cls in (IWAE, VIMCO, DReG) for e in ESTIMATORS),
    *((Line, partial(cls, e), 5) for cls in (IWAE, VIMCO) for e in ("score", "nvil", "measure-valued")),
]


@pytest.mark.proof
@pytest.mark.parametrize(("case", "make", "K"), GRID, ids=label)
def test_value_and_gradient_everywhere(case, make, K):
    agrees(case, make, K)


@pytest.mark.proof
@pytest.mark.parametrize("alpha", [-1.0, 0.5, 2.0])
@pytest.mark.parametrize(("case", "make"), [(Layers, VIMCO), (Global, IWAE), (Line, DReG), (Chain, DReG)], ids=label)
def test_other_orders_everywhere(case, make, alpha):
    agrees(case, partial(make, alpha=alpha), 2, alpha=alpha)


@pytest.mark.proof
@pytest.mark.parametrize("make", [IWAE, VIMCO, ARITHMETIC, OVIS, partial(VIMCO, "disarm")], ids=label)
def test_fifty_particles_everywhere(make):
    agrees(Bit, make, 50)


def test_the_factory_makes_them():
    """`make_elbo` gives the classes above: same draws, same numbers."""
    for name, make in (("iwae", IWAE), ("vimco", VIMCO), ("ovis", OVIS), ("dreg", DReG)):
        case, losses = Line if name == "dreg" else Bit, []
        for elbo in (make_elbo(name, num_particles=5), make(num_particles=5, max_plate_nesting=1)):
            torch.manual_seed(0)
            program = case(7)
            losses.append((elbo.loss_and_grads(program.model, program.guide), *program.parameters.values()))
        assert type(elbo) is type(make_elbo(name, num_particles=5)) and losses[0][0] == losses[1][0]
        pairs = zip(losses[0][1:], losses[1][1:], strict=True)
        assert all(torch.equal(a.grad, b.grad) for a, b in pairs)
