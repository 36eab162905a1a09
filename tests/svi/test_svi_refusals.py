"""`pathscore.SVI`: nothing wrong in silence. Refused programs, and steps that are not finite."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from svi_cases import Pair, X, bits, same, vae_run, values
from torch import nn

from pathscore.errors import NumericsError, UsageError
from pathscore.svi import SVI
from pathscore.svi.optimiser import OptimizerSpec


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
