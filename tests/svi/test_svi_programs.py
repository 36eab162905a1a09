"""`pathscore.SVI` with every way of writing a program: functions, modules, PyroModules, autoguides."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import ReweightedWakeSleep, Trace_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from svi_cases import Pair, X, values
from torch import nn
from torch.distributions import constraints

from pathscore.errors import UsageError
from pathscore.svi import SVI
from pathscore.svi.joint_optim import JointOptim
from pathscore.svi.optimiser import OptimizerSpec


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
        assert pyro.param("scale").item() == pytest.approx(7**-0.5, rel=0.05)  # as after Pyro's own SVI

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
