"""`pathscore.SVI`: the same numbers as by hand, and runs that do not touch each other."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from svi_cases import Pair, X, bits, same, vae_run, values

from guides import AmortizedGuide
from models import VAE
from pathscore.machine.foreach import gradient_norm
from pathscore.svi import SVI
from pathscore.svi.optimiser import OPTIMIZERS, OptimizerSpec


class TestNumbers:
    def test_equals_hand_written_adam_to_the_bit(self):
        x, svi = bits(), vae_run()
        torch.manual_seed(5)
        losses = [svi.step(x) for _ in range(20)]

        hand = vae_run()
        named = {f"{kind}$$${n}": p for kind, m in hand.modules().items() for n, p in m.named_parameters()}
        adam = torch.optim.Adam(named.values(), lr=0.01, fused=True)
        torch.manual_seed(5)
        by_hand = []
        with hand.scope():
            for _ in range(20):
                q = poutine.trace(hand.guide).get_trace(x)
                p = poutine.trace(poutine.replay(hand.model, trace=q)).get_trace(x)
                loss = -(p.log_prob_sum() - q.log_prob_sum())
                by_hand.append(loss.item())
                adam.zero_grad()
                loss.backward()
                adam.step()
        assert losses == pytest.approx(by_hand, rel=1e-6)  # Pyro sums its report in double precision
        assert same(values(svi), {name: p.detach() for name, p in named.items()})

    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_optimiser_equals_torchs_own_to_the_bit(self, name):
        kind, _ = OPTIMIZERS[name]
        torch.manual_seed(0)
        ours = {f"p{i}": torch.randn(4, i + 1, requires_grad=True) for i in range(3)}
        theirs = [p.detach().clone().requires_grad_() for p in ours.values()]
        joint, own = OptimizerSpec(name=name, lr=0.02).joint(), kind(theirs, lr=0.02, weight_decay=0.0, fused=True)
        for _ in range(30):
            for p, q in zip(ours.values(), theirs, strict=True):
                p.grad = torch.randn_like(p)
                q.grad = p.grad.clone()
            joint.adopt(ours.items())
            joint.advance()
            own.step()
        assert all(torch.equal(p, q) for p, q in zip(ours.values(), theirs, strict=True))

    def test_adam_equals_its_formula(self):
        """Against the update written out, in float64; the planted fault leaves out the bias correction."""
        for corrected, agrees in ((True, True), (False, False)):
            p = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
            value, m, v = p.detach().clone(), torch.zeros(2).double(), torch.zeros(2).double()
            joint = OptimizerSpec(lr=0.1).joint()
            for step in range(1, 11):
                g = torch.tensor([0.5 * step, -0.1], dtype=torch.float64)
                p.grad = g.clone()
                joint.adopt([("p", p)])
                joint.advance()
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                m_hat = m / (1 - 0.9**step) if corrected else m
                v_hat = v / (1 - 0.999**step) if corrected else v
                value = value - 0.1 * m_hat / (v_hat.sqrt() + 1e-8)
            assert torch.allclose(p.detach(), value, rtol=0, atol=1e-12) == agrees

    def test_per_datum_divides_loss_and_gradient(self):
        whole, mean = vae_run("sgd", seed=1), vae_run("sgd", seed=1, per_datum=True)
        x = bits()
        for svi in (whole, mean):
            torch.manual_seed(2)
            svi.loss_value = svi.step(x)
        assert mean.loss_value == pytest.approx(whole.loss_value / len(x), rel=1e-12)
        assert mean.gradient_norm == pytest.approx(whole.gradient_norm / len(x), rel=1e-5)

    def test_clips_the_norm_of_the_whole_gradient(self):
        svi = vae_run(OptimizerSpec(name="sgd", lr=1.0, clip_norm=0.25))
        x = bits()
        svi.step(x)
        before = values(svi)
        svi.step(x)
        assert svi.gradient_norm > 1
        moved = math.sqrt(sum(float((p - before[n]).square().sum()) for n, p in values(svi).items()))
        assert moved == pytest.approx(0.25, rel=1e-4)

    def test_norm_of_large_finite_gradients_is_finite(self):
        assert gradient_norm([torch.full((2,), 1e30), torch.full((2,), 1e30)]) == pytest.approx(2e30)
        assert gradient_norm([torch.tensor([float("inf")])]) == float("inf")
        assert math.isnan(gradient_norm([torch.tensor([float("nan"), float("inf")])]))


class TestIsolation:
    def test_two_runs_never_touch_each_other(self):
        x = bits()
        alone = vae_run(seed=0)
        torch.manual_seed(7)
        for _ in range(4):
            alone.step(x)
        first, second = vae_run(seed=0), vae_run(seed=1)
        torch.manual_seed(7)
        for _ in range(4):
            first.step(x)
            with torch.random.fork_rng():
                second.step(x)
        assert same(values(first), values(alone))
        assert not same(values(second), values(first))

    def test_a_second_run_in_the_users_store_trains(self):
        pyro.param("loc", torch.tensor(99.0))
        svi = SVI(Pair().model, Pair().guide, OptimizerSpec(lr=0.1), Trace_ELBO())
        svi.step(X)
        assert svi.parameters()["loc"].item() == pytest.approx(0.3, abs=0.11)
        assert pyro.param("loc").item() == svi.parameters()["loc"].item()
        pyro.clear_param_store()

    def test_scope_nests_and_survives_errors(self):
        svi = SVI(Pair().model, Pair().guide, "adam", Trace_ELBO(), publish=False)
        with svi.scope():
            svi.step(X)
            with svi.scope():
                assert "loc" in pyro.get_param_store()
        with pytest.raises(RuntimeError), svi.scope():
            raise RuntimeError
        with svi.scope():
            assert "loc" in pyro.get_param_store()
        assert len(pyro.get_param_store()) == 0

    @pytest.mark.parametrize("on", [True, False])
    def test_leaves_validation_as_it_was(self, on):
        with pyro.validation_enabled(on):
            svi = vae_run()
            for _ in range(3):
                svi.step(bits())
                assert torch.distributions.Distribution._validate_args == on
                assert pyro.settings.get("validate_infer") == on and pyro.settings.get("validate_poutine") == on


def test_programs_run_between_steps_leave_nothing_behind():
    # An evaluation inside the scope runs the programs thousands of times; kept messages would keep their tensors.
    model, guide, x = VAE(6, layers=(2,), hidden=(4,)), AmortizedGuide(6, layers=(2,), hidden=(4,)), torch.ones(3, 6)
    svi = SVI(model, guide, OptimizerSpec())
    svi.step(x)
    with svi.scope():
        for _ in range(3):
            guide(x)
        assert svi.recorder.sites == []


def test_a_step_in_which_nothing_has_a_gradient_moves_nothing():
    def model(x):
        loc = pyro.param("loc", torch.tensor(0.5)).detach()
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    svi = SVI(model, lambda x: None, OptimizerSpec(), per_datum=True, require_gradients=False)
    for _ in range(2):
        svi.step(torch.ones(3))
    assert svi.parameters()["loc"].item() == 0.5
