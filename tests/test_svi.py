"""`pathscore.SVI`: the same numbers as by hand, every way of writing a program, and nothing wrong in silence."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import RenyiELBO, ReweightedWakeSleep, Trace_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.distributions import constraints

from guides import AmortizedGuide
from models import VAE
from pathscore.errors import NumericsError, UsageError
from pathscore.foreach import gradient_norm
from pathscore.joint_optim import JointOptim
from pathscore.optimiser import OPTIMIZERS, OptimizerSpec
from pathscore.svi import SVI

X = torch.linspace(-1.0, 2.0, 6)


class Pair:
    """A conjugate Normal program in plain functions; `late` makes one more parameter from step 7 on."""

    def __init__(self, late: int | None = None):
        self.late, self.calls = late, 0

    def model(self, x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample(
                "x", dist.Normal(z, pyro.param("noise", torch.tensor(1.0), constraint=constraints.positive)), obs=x
            )

    def guide(self, x):
        self.calls += 1
        loc = pyro.param("loc", torch.tensor(0.3))
        if self.late is not None and self.calls >= self.late:
            loc = loc + pyro.param("late", lambda: 0.1 * torch.randn(()))
        pyro.sample("z", dist.Normal(loc, pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)))


def vae_run(optim=None, latent="normal", seed=0, **options):
    torch.manual_seed(seed)
    sizes = {"data_size": 12, "layers": (3,), "hidden": (8,), "latent": latent}
    model, guide = VAE(**sizes), AmortizedGuide(**sizes)
    return SVI(model, guide, optim or OptimizerSpec(lr=0.01), Trace_ELBO(max_plate_nesting=1), **options)


def bits(rows=10, seed=3):
    return (torch.rand(rows, 12, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def values(svi):
    return {name: p.detach().clone() for name, p in svi.parameters().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


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


class TestPrograms:
    def test_plain_functions_recover_the_posterior(self):
        """Conjugate Normal with unit noise: posterior mean Σx/(n+1), sd 1/√(n+1)."""
        pair = Pair()

        def model(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        torch.manual_seed(0)
        svi = SVI(
            model,
            pair.guide,
            OptimizerSpec(lr=0.05, schedule="cosine", total_steps=600),
            TraceGraph_ELBO(max_plate_nesting=1, num_particles=20, vectorize_particles=True),
        )
        for _ in range(600):
            svi.step(X)
        with svi.scope(), torch.no_grad():
            assert pyro.param("loc").item() == pytest.approx(X.sum().item() / 7, abs=0.02)
            assert pyro.param("scale").item() == pytest.approx(7**-0.5, rel=0.05)
        assert len(pyro.get_param_store()) == 0

    def test_constrained_parameters_move_unconstrained(self):
        svi = SVI(Pair().model, Pair().guide, OptimizerSpec(name="sgd", lr=100.0), Trace_ELBO())
        svi.step(X)
        with svi.scope():
            assert pyro.param("scale").item() >= 0
        assert svi.parameters()["scale"].is_leaf

    def test_adopts_a_parameter_made_at_step_seven(self):
        svi = SVI((pair := Pair(late=7)).model, pair.guide, "adam", Trace_ELBO())
        for step in range(1, 10):
            before = svi.parameters().get("late", torch.tensor(0.0)).clone()
            svi.step(X)
            assert ("late" in svi.parameters()) == (step >= 7)
            assert step < 7 or not torch.equal(svi.parameters()["late"], before)
        assert isinstance(svi.optim, JointOptim) and len(svi.optim.torch_optim.param_groups) == 2

    @pytest.mark.parametrize("local", [False, True])
    @pytest.mark.parametrize("auto", [AutoNormal, AutoDiagonalNormal])
    def test_modules_and_autoguides(self, local, auto):
        with pyro.settings.context(module_local_params=local):
            model = PyroModule[nn.Linear](2, 1)
            model.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))
            model.noise = PyroParam(torch.tensor(1.0), constraint=constraints.positive)

            class Regression(PyroModule):
                def __init__(self):
                    super().__init__()
                    self.linear = model

                def forward(self, x, y):
                    mean = self.linear(x).squeeze(-1)
                    with pyro.plate("data", len(y)):
                        pyro.sample("y", dist.Normal(mean, self.linear.noise), obs=y)

            torch.manual_seed(1)
            regression = Regression()
            svi = SVI(regression, auto(regression), OptimizerSpec(lr=0.02), Trace_ELBO())
            x = torch.randn(50, 2)
            y = x @ torch.tensor([1.0, -2.0]) + 0.5
            first = svi.step(x, y)
            before = values(svi)
            for _ in range(200):
                last = svi.step(x, y)
            assert last < first - 30
            assert len(before) == 4 and not any(torch.equal(before[n], p) for n, p in values(svi).items())

    def test_losses_in_a_tuple(self):
        pair = Pair()
        svi = SVI(
            pair.model,
            pair.guide,
            "adam",
            ReweightedWakeSleep(num_particles=3, max_plate_nesting=1, vectorize_particles=False),
        )
        with pytest.raises(UsageError, match="ReweightedWakeSleep is wrong for this program: site 'x' is in a plate"):
            svi.step(X)
        losses = SVI(pair.model, pair.guide, "adam", ReweightedWakeSleep(num_particles=3, max_plate_nesting=1)).step(
            X[:1]
        )
        assert isinstance(losses, tuple) and all(isinstance(loss, float) for loss in losses)

    def test_takes_a_torch_factory_and_a_pyro_optimiser(self):
        for optim in (torch.optim.RAdam, lambda ps: torch.optim.Adam(ps, lr=0.1), pyro.optim.Adam({"lr": 0.1})):
            svi = SVI(Pair().model, Pair().guide, optim, Trace_ELBO())
            svi.step(X)
            before = values(svi)
            svi.step(X)
            assert not any(torch.equal(before[n], p) for n, p in values(svi).items())
        with pytest.raises(UsageError, match="optim is a Adam: pass OptimizerSpec"):
            SVI(Pair().model, Pair().guide, torch.optim.Adam([torch.zeros(1, requires_grad=True)]), Trace_ELBO())

    def test_estimators_train_in_a_group_of_their_own(self):
        class WithEstimator(Trace_ELBO):
            def __init__(self):
                super().__init__(max_plate_nesting=1)
                self.estimators = nn.ModuleDict({"z": nn.Linear(1, 1, bias=False)})

            def loss_and_grads(self, model, guide, *args, **kwargs):
                self.estimators["z"](torch.ones(1)).sum().backward()
                return super().loss_and_grads(model, guide, *args, **kwargs)

        elbo = WithEstimator()
        svi = SVI(Pair().model, Pair().guide, OptimizerSpec(name="sgd", lr=0.01, estimator_lr=0.5), elbo)
        before = elbo.estimators["z"].weight.item()
        svi.step(X)
        assert elbo.estimators["z"].weight.item() == pytest.approx(before - 0.5)
        assert "estimators" in svi.state_dict()["modules"]


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
        assert pyro.param("loc").item() == 99.0
        pyro.clear_param_store()

    def test_scope_nests_and_survives_errors(self):
        svi = SVI(Pair().model, Pair().guide, "adam", Trace_ELBO())
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


class TestRefusals:
    def test_nothing_to_train(self):
        encoder = nn.Linear(1, 1)

        def guide(x):
            pyro.sample("z", dist.Normal(encoder(x[:1]).squeeze(), 1.0))

        def model(x):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0).expand([6]).to_event(1), obs=x)

        with pytest.raises(UsageError, match=r"nothing to train: .*pyro\.module"):
            SVI(model, guide, "adam", Trace_ELBO()).step(X)

    def test_a_parameter_without_gradient_is_named(self):
        pair = Pair()

        def guide(x):
            pyro.param("unused", torch.zeros(2))
            pair.guide(x)

        svi = SVI(pair.model, guide, "adam", Trace_ELBO())
        with pytest.raises(UsageError, match="no gradient reaches unused: use it"):
            svi.step(X)
        assert all(p.grad is None for p in svi.parameters().values())
        SVI(pair.model, guide, "adam", Trace_ELBO(), require_gradients=False).step(X)

    def test_a_module_whose_parameters_pyro_copies(self):
        module = nn.Linear(2, 2)
        module.weight = nn.Parameter(torch.zeros(2, 2).T)

        def guide(x):
            pyro.module("net", module)
            pyro.sample("z", dist.Normal(module(torch.ones(2)).sum(), 1.0))

        with pytest.raises(UsageError, match=r"'net\.weight' of the module is not the tensor that Pyro holds"):
            SVI(Pair().model, guide, "adam", Trace_ELBO()).step(X)

    def test_a_replaced_parameter(self):
        svi = vae_run()
        svi.step(bits())
        owner = next(m for m in svi.guide.modules() if isinstance(m, nn.Linear))
        owner.weight = nn.Parameter(owner.weight.detach().clone())
        with pytest.raises(UsageError, match="change it in place"):
            svi.step(bits())

    def test_a_batch_without_a_plate(self):
        def model(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0).expand([6]), obs=x)

        with pytest.raises(UsageError, match=r"site 'x' has batch shape \(6\) .*pyro.plate\('data', 6\)"):
            SVI(model, Pair().guide, "adam", Trace_ELBO()).step(X)

    def test_renyi_with_a_discrete_site(self):
        svi = vae_run(latent="bernoulli")
        svi = SVI(svi.model, svi.guide, "adam", RenyiELBO(max_plate_nesting=1))
        with pytest.raises(UsageError, match="RenyiELBO is wrong for this program: site 'z1' is not reparameterised"):
            svi.step(bits())

    def test_renyi_with_a_subsample(self):
        def guide(x):
            loc = pyro.param("loc", torch.zeros(6))
            with pyro.plate("data", 6, subsample_size=3) as index:
                pyro.sample("z", dist.Normal(loc[index], 1.0))

        def model(x):
            with pyro.plate("data", 6, subsample_size=3) as index:
                pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x[index])

        with pytest.raises(UsageError, match="rescaled, by a subsampled plate"):
            SVI(model, guide, "adam", RenyiELBO(max_plate_nesting=1)).step(X)
        SVI(model, guide, "adam", Trace_ELBO()).step(X)

    def test_unknown_words(self):
        with pytest.raises(UsageError, match="unknown optimizer 'adm': did you mean 'adam'"):
            OptimizerSpec(name="adm")
        with pytest.raises(UsageError, match="validate must be one of"):
            vae_run(validate="sometimes")
        with pytest.raises(UsageError, match="lr must be a positive number, got -1"):
            OptimizerSpec(lr=-1)


class TestNumerics:
    """Reliability 39: the optimiser is not stepped, and the message names loss, site and step."""

    @pytest.mark.parametrize("poison", [float("nan"), float("inf")])
    @pytest.mark.parametrize("step", [1, 4])
    def test_a_poisoned_batch(self, poison, step):
        svi = SVI(Pair().model, Pair().guide, "adam", Trace_ELBO())
        for _ in range(step - 1):
            svi.step(X)
        before, optim = values(svi), {n: dict(s) for n, s in svi.optim.get_state()["by_name"].items()}
        bad = X.clone()
        bad[2] = poison
        with pytest.raises(NumericsError) as caught:
            svi.step(bad)
        kind = "nan" if math.isnan(poison) else "infinite"
        assert f"step {step}: the loss is" in str(caught.value) and f"at site 'x': its data is {kind}" in str(
            caught.value
        )
        assert step == 1 or same(values(svi), before)
        after = svi.optim.get_state()
        assert after["steps"] == step - 1
        assert all(torch.equal(after["by_name"][n][k], v) for n, s in optim.items() for k, v in s.items())
        svi.step(X)

    def test_a_poisoned_parameter(self):
        svi = vae_run()
        svi.step(bits())
        with torch.no_grad():
            next(svi.guide.parameters()).view(-1)[0] = float("nan")
        with pytest.raises(NumericsError, match=r"step 2: the loss is .*parameter 'guide\.networks.*weight' is nan"):
            svi.step(bits())

    def test_a_gradient_that_is_not_finite(self):
        def guide(x):
            loc = pyro.param("loc", torch.tensor(0.0))
            pyro.sample("z", dist.Normal(loc.abs().sqrt(), 1.0))

        svi = SVI(Pair().model, guide, "adam", Trace_ELBO())
        with pytest.raises(NumericsError, match=r"step 1: the gradient of loc is (nan|infinite)"):
            svi.step(X)
        assert svi.parameters()["loc"].item() == 0.0

    def test_warnings_as_warnings_still_stop_the_step(self):
        import warnings

        svi = SVI(Pair().model, Pair().guide, "adam", Trace_ELBO())
        svi.step(X)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(NumericsError, match="step 2: the loss is nan, first at site 'x': its data is nan"):
                svi.step(X * float("nan"))


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
