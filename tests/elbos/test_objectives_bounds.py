"""Bounds: below the evidence, rising with K, unmoved by subsampling, and equal to Pyro's where Pyro is right."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_cases import Bit, Layers
from objective_normals import Line
from objective_reference import bound, spread
from pyro.infer import RenyiELBO
from pyro.poutine import mask

from pathscore import SVI
from pathscore.elbos import make_elbo
from pathscore.elbos.importance import ImportanceELBO
from pathscore.elbos.weights import leave_one_out, others

PARTICLES = (1, 2, 5)


def random_values(case, generator):
    """Parameters of a case, all drawn from N(0, 1.5²)."""
    shapes = {n: torch.tensor(v).shape for n, v in case.values.items()}
    return {n: (1.5 * torch.randn(s, generator=generator)).double().tolist() for n, s in shapes.items()}


@pytest.mark.parametrize("seed", range(100))
def test_elbo_below_k_samples_below_evidence(seed):
    """Exact values in order, and the objective's own mean over 2 000 copies within 5 standard errors of them.

    500 comparisons: false alarms 3e-4 in all. A bound off by 5/√2000 = 0.11 of its standard deviation is seen.
    """
    case = (Bit, Layers)[seed % 2]
    values = random_values(case, torch.Generator().manual_seed(seed))
    single = case(values=values)
    joint = single.joint(single.single())
    exact = [bound(joint, K).item() for K in PARTICLES]
    evidence = joint.log_p.logsumexp(0).item()
    assert all(a <= b + 1e-12 for a, b in zip(exact, [*exact[1:], evidence], strict=True))
    many = case(2000, values)
    torch.manual_seed(seed)
    for K, value in zip(PARTICLES, exact, strict=True):
        found = -make_elbo("iwae", num_particles=K).loss(many.model, many.guide) / 2000
        assert abs(found - value) <= 5 * spread(joint, K) / 2000**0.5 + 1e-12, (K, found, value)


def conjugate(evidence=-150.53):
    """Programs of a batch of 100 data x_n ~ N(z_n, 1), z_n ~ N(0, 1), scaled for the log p(x) asked for."""
    torch.manual_seed(0)
    x = torch.randn(100, dtype=torch.float64)
    x = x * math.sqrt((-4 * evidence - 200 * math.log(4 * math.pi)) / x.square().sum())

    def guide(batch):
        with pyro.plate("data", 100, subsample=batch):
            pyro.sample("z", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))

    def model(batch):
        with pyro.plate("data", 100, subsample=batch):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[batch])

    return model, guide


def full_bound(elbo, programs, passes):
    """Mean over passes of ten batches of 10, whose mean bound is the bound of all 100 data."""
    batches = [batch for _ in range(passes) for batch in torch.randperm(100).split(10)]
    return -sum(elbo.loss(*programs, batch) for batch in batches) / len(batches)


def test_a_subsampled_plate_keeps_it_a_bound():
    """At or below log p(x) = −150.53 (20 passes: the mean has a standard error of 0.02), where Pyro's is far above."""
    programs = conjugate()
    assert -150.7 < full_bound(make_elbo("iwae", num_particles=1000), programs, 20) <= -150.5
    stock = RenyiELBO(alpha=0, num_particles=1000, vectorize_particles=True, max_plate_nesting=1)
    assert full_bound(stock, programs, 1) > -120


@pytest.mark.parametrize("name", ["vimco", "dreg", "ovis", "wake-sleep"])
def test_the_others_report_the_same_bound(name):
    assert full_bound(make_elbo(name, num_particles=1000), conjugate(), 2) == pytest.approx(-150.58, abs=0.4)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_equals_pyro_draw_for_draw_where_pyro_is_right(alpha):
    """Full batch, reparameterised: loss and gradients of RenyiELBO."""
    found = []
    for kind, options in ((RenyiELBO, {"vectorize_particles": True}), (ImportanceELBO, {})):
        pyro.clear_param_store()
        programs = registered(Line, {n: torch.tensor(v) for n, v in Line.values.items()}, copies=6)
        elbo = kind(alpha=alpha, num_particles=4, max_plate_nesting=1, **options)
        elbo.loss(*programs)  # registers the parameters
        torch.manual_seed(1)
        loss = elbo.loss_and_grads(*programs)
        found.append(torch.tensor([loss, *(p.grad for p in pyro.get_param_store()._params.values())]))
    assert torch.allclose(*found, rtol=1e-12, atol=1e-12)


def test_one_particle_is_the_elbo():
    found = []
    for name in ("trace", "iwae", "dreg"):
        case = Line(6)
        torch.manual_seed(1)
        found.append(make_elbo(name).loss(case.model, case.guide))
    assert found == pytest.approx([found[0]] * 3, rel=1e-12)


def test_weights_of_a_ragged_last_batch():
    """Batches of different sizes under one plan: each the sum of its data's bounds."""
    x = torch.randn(7, 1, dtype=torch.float64)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, 0], 1.0))

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x[:, 0])

    elbo = make_elbo("iwae", num_particles=20_000)
    evidence = dist.Normal(0.0, math.sqrt(2.0)).log_prob(x[:, 0])
    for part in (x[:4], x[4:]):
        total = evidence[:4].sum() if len(part) == 4 else evidence[4:].sum()
        assert -elbo.loss(model, guide, part) == pytest.approx(total.item(), abs=0.1)


def test_a_masked_datum_adds_nothing():
    case = Bit(5)
    hidden = [mask(program, mask=torch.arange(5) >= 3) for program in (case.model, case.guide)]
    elbo = make_elbo("vimco", num_particles=3)
    assert elbo.loss_and_grads(*hidden) > 0
    for p in case.parameters.values():
        assert p.grad[:3].abs().max() < 1e-14 and p.grad[3:].abs().max() > 1e-3


def test_leave_one_out_where_one_weight_dominates_or_is_zero():
    """Against the sum over the others written out; subtracting from the whole would give −inf or NaN here."""
    logs = torch.tensor([[0.0, 800.0, -torch.inf], [-900.0, 1.0, -2.0], [3.0, -1.0, -torch.inf]], dtype=torch.float64)
    expected = torch.stack([logs[[j for j in range(3) if j != k]].logsumexp(0) for k in range(3)])
    assert torch.allclose(others(logs), expected)
    sums = leave_one_out(logs, torch.cumsum, torch.add, 0.0)
    assert torch.allclose(sums, torch.stack([logs[[j for j in range(3) if j != k]].sum(0) for k in range(3)]))
    assert (others(logs[:1]) == -torch.inf).all()


@pytest.mark.parametrize("name", ["iwae", "vimco", "ovis", "vr", "wake-sleep", "dreg"])
def test_trains_in_either_svi_and_as_a_module(name):
    case = Line if name == "dreg" else Bit
    for run in (
        lambda m, g, e: SVI(m, g, "adam", e).step(),
        lambda m, g, e: pyro.infer.SVI(m, g, pyro.optim.Adam({"lr": 0.01}), e).step(),
    ):
        start = {n: torch.tensor(v) for n, v in case.values.items()}
        losses = run(*registered(case, start), make_elbo(name, num_particles=4))
        assert math.isfinite(losses)
        pyro.clear_param_store()


def registered(case, start, copies=1):
    """Programs of copies of a case whose parameters live in Pyro's store."""

    def program(which):
        def run():
            copy = case(copies)
            copy.parameters = {n: pyro.param(n, v.double()).expand(copies, *v.shape) for n, v in start.items()}
            return getattr(copy, which)()

        return run

    return program("model"), program("guide")
