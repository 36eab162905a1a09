"""Pyro's tutorials with the class of SVI exchanged: what follows training gives trained values, and runs stay apart."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from torch import nn
from torch.distributions import constraints

from pathscore import SVI, OptimizerSpec, evaluate, examine, measure, to_arviz
from pathscore.diagnostics import Effort

X = 5 + torch.linspace(-1, 1, 50)


def model(x):
    m = pyro.sample("m", dist.Normal(0.0, 10.0))
    with pyro.plate("d", len(x)):
        pyro.sample("x", dist.Normal(m, 1.0), obs=x)


def guide(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    pyro.sample("m", dist.Normal(loc, pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)))


def trained(model=model, guide=guide, x=X, steps=250, **options):
    torch.manual_seed(0)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(), **options)
    for _ in range(steps):
        svi.step(x)
    return svi


def test_the_coin_of_the_first_tutorial_to_its_last_line():
    """SVI Part I: ten throws, six heads, prior Beta(10, 10); the posterior is Beta(16, 14)."""
    data = torch.tensor([1.0] * 6 + [0.0] * 4)

    def model(data):
        f = pyro.sample("latent_fairness", dist.Beta(10.0, 10.0))
        with pyro.plate("data", len(data)):
            pyro.sample("obs", dist.Bernoulli(f), obs=data)

    def guide(data):
        a = pyro.param("alpha_q", torch.tensor(15.0), constraint=constraints.positive)
        b = pyro.param("beta_q", torch.tensor(15.0), constraint=constraints.positive)
        pyro.sample("latent_fairness", dist.Beta(a, b))

    torch.manual_seed(0)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.005, "betas": (0.90, 0.999)}), loss=Trace_ELBO())
    for _ in range(1500):
        svi.step(data)
    alpha, beta = pyro.param("alpha_q").item(), pyro.param("beta_q").item()
    assert alpha / (alpha + beta) == pytest.approx(16 / 30, abs=0.03)
    drawn = Predictive(model, guide=guide, num_samples=300)(data)["latent_fairness"]
    assert drawn.mean().item() == pytest.approx(16 / 30, abs=0.04)


def test_everything_outside_sees_trained_values():
    trained()
    store = pyro.get_param_store()
    assert pyro.param("loc").item() == pytest.approx(5, abs=0.2) and "scale" in store
    assert Predictive(model, guide=guide, num_samples=50)(X)["m"].mean().item() == pytest.approx(5, abs=0.3)
    assert pyro.poutine.trace(guide).get_trace(X).nodes["m"]["fn"].loc.item() == pytest.approx(5, abs=0.2)
    assert dict(store.named_parameters()).keys() == {"loc", "scale"} == set(store.get_state()["params"])


@pytest.mark.parametrize("make", [AutoNormal, AutoMultivariateNormal, AutoDelta])
def test_autoguides_give_their_trained_median(make):
    auto = make(model)
    trained(guide=auto)
    assert auto.median(X)["m"].item() == pytest.approx(5, abs=0.3)
    assert Predictive(model, guide=auto, num_samples=20)(X)["m"].mean().item() == pytest.approx(5, abs=0.6)


def test_a_cleared_store_is_filled_again_and_publishing_can_be_turned_off():
    svi = trained()
    pyro.clear_param_store()
    svi.step(X)
    assert pyro.param("loc").item() == pytest.approx(5, abs=0.2)
    pyro.clear_param_store()
    trained(publish=False)
    assert len(pyro.get_param_store()) == 0


def test_a_restored_run_is_seen_too():
    svi = SVI(model, guide, OptimizerSpec(lr=0.1), Trace_ELBO())
    for _ in range(150):
        svi.step(X)
    state = svi.state_dict()
    pyro.clear_param_store()
    again = SVI(model, guide, OptimizerSpec(lr=0.1), Trace_ELBO())
    again.load_state_dict(state, X)
    assert pyro.param("loc").item() == pytest.approx(5, abs=0.3)


def test_modules_are_shared_and_not_copied():
    net = nn.Linear(1, 1)

    def with_net(x):
        pyro.module("net", net)
        pyro.sample("m", dist.Normal(net(torch.ones(1)), 0.3).to_event(1))

    def vector(x):
        m = pyro.sample("m", dist.Normal(torch.zeros(1), 10.0).to_event(1))
        with pyro.plate("d", len(x)):
            pyro.sample("x", dist.Normal(m[..., 0], 1.0), obs=x)

    trained(vector, with_net)
    assert pyro.param("net$$$weight").data_ptr() == net.weight.data_ptr()


def test_functions_of_a_pair_take_the_run_itself():
    svi = trained(publish=False)
    assert float(to_arviz(svi, X, 100, seed=0)["posterior"]["m"].mean()) == pytest.approx(5, abs=0.3)
    assert len(examine(svi, X, names=["importance"], effort=Effort(draws=50))) == 1
    assert "pathwise" in str(measure(svi, X, estimators=["pathwise"], replicates=50, warmup=0))


def test_evaluate_takes_the_run_and_moves_nothing():
    encoder = nn.Linear(1, 2)

    def local(x):
        with pyro.plate("d", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z + 5, 1.0), obs=x)

    def amortised(x):
        pyro.module("encoder", encoder)
        with pyro.plate("d", len(x)):
            h = encoder(x[..., None])
            pyro.sample("z", dist.Normal(h[..., 0], h[..., 1].exp()))

    svi = trained(local, amortised)
    found = evaluate(svi, X, importance_samples=20)
    assert found["test_log_likelihood"] >= found["test_elbo"] - 0.1
