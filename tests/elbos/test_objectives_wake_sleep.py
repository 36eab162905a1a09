"""Reweighted wake-sleep: the expected update summed over all draws, per data point, asleep and awake; planted faults.

N = 40 000 updates a test, pass rule and power as in test_objectives.py.
"""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_cases import BITS, Bit, Case, Global, Layers, Subsampled, bernoulli
from objective_normals import Line
from objective_reference import MAX_Z, Joint, exact_gradient, sampled_gradients, wake
from proof_statistics import judge
from pyro.infer.autoguide import AutoDelta, AutoNormal, init_to_value
from torch.distributions.constraints import positive

from pathscore.elbos import make_elbo
from pathscore.elbos.wake_sleep import WakeSleep
from pathscore.errors import UsageError

N = 40_000


def agrees(case, elbo, target, *args, seed=0):
    program = case(N)
    elbo.prepare(program.model, program.guide, *args)
    torch.manual_seed(seed)
    verdict = judge(sampled_gradients(program, elbo, *args)[0], target)
    assert verdict.passes and verdict.max_z <= MAX_Z, verdict


def awake(case, K):
    """Expected wake updates of θ and φ; Normal nodes are held, for no gradient passes a draw."""
    single = case()
    if case is Line:
        single.joint = partial(single.joint, held=True)
    return exact_gradient(single, partial(wake, K=K))


@pytest.mark.parametrize(("case", "K"), [(Bit, 5), (Subsampled, 2), (Layers, 5), (Global, 2), (Line, 5)])
def test_wake_phases(case, K):
    agrees(case, WakeSleep(num_particles=K), awake(case, K))


class Dream(Case):
    """z bit, x bit given z; q(z | x) reads x."""

    values = {"a": 0.4, "h": -0.8, "c": 0.3, "w": 1.1, "v": -0.5}  # noqa: RUF012
    x = 1.0

    def guide(self, x):
        with self.plate():
            pyro.sample("z", dist.Bernoulli(logits=self.a + self.h * x))

    def model(self, x):
        with self.plate():
            z = pyro.sample("z", dist.Bernoulli(logits=self.c))
            pyro.sample("x", dist.Bernoulli(logits=self.w * z + self.v), obs=x)

    def joint(self, p) -> Joint:
        log_q = bernoulli(p["a"] + p["h"] * self.x, BITS)
        log_p = bernoulli(p["c"], BITS) + bernoulli(p["w"] * BITS + p["v"], self.data)
        return Joint(log_q.exp(), log_p, log_q)

    def asleep(self) -> torch.Tensor:
        """∇φ E_p[log q(z' | x')], zero for θ."""
        p = self.single()
        z, x = (m.flatten() for m in torch.meshgrid(BITS, BITS, indexing="ij"))
        chance = (bernoulli(p["c"], z) + bernoulli(p["w"] * z + p["v"], x)).exp().detach()
        objective = (chance * bernoulli(p["a"] + p["h"] * x, z)).sum()
        found = torch.autograd.grad(objective, list(p.values()), allow_unused=True)
        return torch.stack([torch.zeros((), dtype=z.dtype) if g is None else g for g in found])


@pytest.mark.parametrize("insomnia", [0.0, 0.3, 1.0])
def test_the_sleep_phase(insomnia):
    """θ always climbs L_K; φ's update is the mixture."""
    single, model = Dream(), torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0])
    wakes = awake(Dream, 2)
    target = wakes * (model + (1 - model) * insomnia) + (1 - insomnia) * single.asleep()
    agrees(Dream, WakeSleep(num_particles=2, insomnia=insomnia), target, torch.ones(N, dtype=wakes.dtype))


class Joined(WakeSleep):
    """Weights over the whole batch, as Pyro's."""

    def prepare(self, *args):
        plan = super().prepare(*args)
        plan.weight_plates = frozenset()
        return plan


class Climbing(WakeSleep):
    """φ sent the wrong way."""

    def __init__(self, **options):
        super().__init__(**options)
        self.insomnia = -1.0

    def loss_and_surrogate(self, *args):
        return super(WakeSleep, self).loss_and_surrogate(*args)


class Unnormalised(WakeSleep):
    """Every draw weighed alike."""

    def _run(self, *args):
        draws, terms = super()._run(*args)
        terms.__dict__["shares"] = torch.full_like(terms.log_w, 1 / terms.plan.particles)
        return draws, terms


@pytest.mark.parametrize("kind", [Joined, Climbing, Unnormalised])
def test_planted_faults_are_caught(kind):
    with pytest.raises(AssertionError):
        agrees(Bit, kind(num_particles=2), awake(Bit, 2))


def test_the_loss_does_not_depend_on_the_batch():
    """Per data point; Pyro's rises from 5.22 to 5.65 between 3 and 120 data."""
    torch.manual_seed(0)
    losses = []
    for copies in (3, 120):
        case, repeats = Bit(copies), 1200 // copies
        elbo = make_elbo("wake-sleep", num_particles=5)
        losses.append(sum(elbo.loss(case.model, case.guide) for _ in range(repeats)) / (copies * repeats))
    assert losses[0] == pytest.approx(losses[1], abs=0.15)  # 5 standard errors


def test_refusals():
    case = Bit(3)
    with pytest.raises(UsageError, match="wake-sleep needs --particles 2 or more, got 1"):
        WakeSleep(num_particles=1)
    with pytest.raises(UsageError, match="insomnia is a share between 0"):
        WakeSleep(insomnia=1.5)
    with pytest.raises(UsageError, match="--elbo wake-sleep takes no --estimator"):
        make_elbo("wake-sleep", "rloo", num_particles=2)
    with pytest.raises(UsageError, match="the sleep phase draws 'x', which is no argument"):
        make_elbo("wake-sleep", num_particles=2, insomnia=0.5).loss_and_grads(case.model, case.guide)

    def named():
        with case.plate():
            pyro.sample("z", dist.Bernoulli(logits=case.a), infer={"estimator": "rloo"})

    with pytest.raises(UsageError, match="site 'z': wake-sleep passes no gradient through a draw, so rloo has nothing"):
        make_elbo("wake-sleep", num_particles=2).loss(case.model, named)


def one_normal(x):
    m = pyro.sample("m", dist.Normal(0.0, 3.0))
    with pyro.plate("d", len(x)):
        pyro.sample("x", dist.Normal(m, 1.0), obs=x)


def by_hand(x):
    loc, scale = pyro.param("loc", torch.tensor(0.3)), pyro.param("scale", torch.tensor(0.4), constraint=positive)
    pyro.sample("m", dist.Normal(loc, scale))


def updates(guide, x):
    """Gradients by location and unconstrained scale."""
    pyro.clear_param_store()
    elbo = make_elbo("wake-sleep", num_particles=6)
    elbo.prepare(one_normal, guide, x)
    torch.manual_seed(1)
    elbo.loss_and_grads(one_normal, guide, x)
    return [p.grad for _, p in sorted(dict(pyro.get_param_store().named_parameters()).items()) if p.grad is not None]


def test_an_autoguide_with_point_masses_has_the_update_of_the_guide_by_hand():
    """Draw for draw."""
    x = torch.tensor([0.5, 1.5, 2.5])
    guide = AutoNormal(one_normal, init_loc_fn=init_to_value(values={"m": torch.tensor(0.3)}), init_scale=0.4)
    found, expected = updates(guide, x), updates(by_hand, x)
    assert len(found) == len(expected) == 2
    assert found[0] == pytest.approx(expected[0])
    assert found[1] / torch.expm1(torch.tensor(0.4)) * 0.4 * torch.tensor(0.4).exp() == pytest.approx(expected[1])


def test_a_point_mass_that_parameters_move_is_refused_and_no_empty_list_follows():
    x = torch.zeros(3)
    with pytest.raises(UsageError, match="site 'm' is a point mass that parameters move") as caught:
        make_elbo("wake-sleep", num_particles=2).loss_and_grads(one_normal, AutoDelta(one_normal), x)
    assert "legal here" not in str(caught.value)

    def named():
        pyro.sample("z", dist.Bernoulli(0.3), infer={"estimator": "rloo"})

    with pytest.raises(UsageError) as caught:
        make_elbo("wake-sleep", num_particles=2).loss(named, named)
    assert "legal here" not in str(caught.value)
