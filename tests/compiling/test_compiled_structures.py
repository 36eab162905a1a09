"""Programs whose sites depend on the call: a graph for each structure, up to a limit, the same losses as eagerly."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pathscore import SVI, make_elbo
from pathscore.compiling.compiled_elbo import CompiledELBO
from pathscore.svi.optimiser import OptimizerSpec
from tests.support.compiled_cases import interpreted

X = (torch.rand(6, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float()
Y = torch.eye(3)[torch.tensor([0, 1, 2, 0, 1, 2])]


def labelled():
    """A semi-supervised autoencoder: `y` is latent where it is not given, and one network serves it alone."""
    torch.manual_seed(0)
    of_y, of_z, decoder = nn.Linear(8, 3), nn.Linear(11, 4), nn.Linear(5, 8)

    def model(x, y=None):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(3)), obs=y)
            both = torch.cat([z, y.expand(*z.shape[:-1], 3)], -1)
            pyro.sample("x", dist.Bernoulli(logits=decoder(both)).to_event(1), obs=x)

    def guide(x, y=None):
        pyro.module("of_z", of_z)
        with pyro.plate("data", len(x)):
            if y is None:
                pyro.module("of_y", of_y)
                y = pyro.sample("y", dist.OneHotCategorical(logits=of_y(x)))
            raw = of_z(torch.cat([x.expand(*y.shape[:-1], 8), y], -1))
            pyro.sample("z", dist.Normal(raw[..., :2], raw[..., 2:].exp()).to_event(1))

    return model, guide


def losses(calls, compiled, **options):
    pair = labelled()
    elbo = make_elbo("trace", "auto")
    objective = CompiledELBO(elbo, builder=interpreted, **options) if compiled else elbo
    svi = SVI(*pair, OptimizerSpec("adam", lr=0.01), objective)
    torch.manual_seed(1)
    return [svi.step(*call) for call in calls], objective


CALLS = [(X, Y), (X,), (X, Y), (X,), (X[:4],), (X[:4], Y[:4]), (X, Y), (X,), (X[:4],)]


def test_each_structure_has_a_graph_and_other_sizes_run_eagerly():
    found, objective = losses(CALLS, compiled=True)
    assert found == pytest.approx(losses(CALLS, compiled=False)[0], rel=1e-5)
    assert len(objective.built) == 2


def test_structures_beyond_the_limit_run_eagerly():
    found, objective = losses(CALLS, compiled=True, structures=1)
    assert found == pytest.approx(losses(CALLS, compiled=False)[0], rel=1e-5)
    assert len(objective.built) == 1


def test_sequences_of_other_lengths_are_other_structures():
    def chain(x):
        z = torch.zeros(())
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                z = pyro.sample(f"z_{t}", dist.Normal(0.8 * z, 1.0))
                pyro.sample(f"x_{t}", dist.Normal(z, 0.5), obs=x[:, t])

    def guide(x):
        w = pyro.param("w", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                pyro.sample(f"z_{t}", dist.Normal(w * x[:, t], 0.5))

    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    for elbo in ("trace", "tracegraph"):
        objective = CompiledELBO(make_elbo(elbo, "z_*=score-avg"), builder=interpreted)
        with pyro.get_param_store().scope():
            svi = SVI(chain, guide, "adam", objective)
            for steps in (4, 2, 3, 4, 2, 3, 4):
                svi.step(x[:, :steps])
        assert len(objective.built) == 3


def beside():
    """A bit, a second one given it, and a Normal that has nothing to do with them: kept in the rows of the bits."""
    logits = torch.zeros(8)

    def model(x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Bernoulli(torch.full((8,), 0.3)).to_event(1))
            c = pyro.sample("c", dist.Bernoulli(0.2 + 0.5 * b).to_event(1))
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Bernoulli(logits=b + c + z[..., None] - 1).to_event(1), obs=x)

    def guide(x):
        raw = pyro.param("logits", logits)
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Bernoulli(logits=raw + x).to_event(1))
            pyro.sample("c", dist.Bernoulli(logits=b - 0.5 + raw).to_event(1))
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(())), 0.5))

    return model, guide


@pytest.mark.parametrize("name", ["enum", "disarm", "rebar", "local"])
@pytest.mark.parametrize("elbo", ["trace", "tracegraph", "iwae"])
def test_rows_that_keep_draws_are_those_of_the_eager_steps(elbo, name):
    found = []
    for compiled in (False, True):
        pyro.clear_param_store()
        objective = make_elbo(elbo, {"b": name, "c": "disarm", "z": "pathwise"}, num_particles=2)
        objective = CompiledELBO(objective, builder=interpreted) if compiled else objective
        svi = SVI(*beside(), OptimizerSpec("adam", lr=0.01), objective)
        torch.manual_seed(1)
        found.append([svi.step(X) for _ in range(5)])
    assert objective.built and found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.filterwarnings("ignore:--estimator. 'y' matches y alone")
@pytest.mark.parametrize("spec", ["auto", {"y": "score-avg", "z": "pathwise"}, {"y": "nvil", "z": "pathwise"}])
@pytest.mark.parametrize("after", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_that_continues_is_the_undisturbed_one_bit_for_bit(compiled, after, spec):
    """Interrupted before, between and after the calls that make parts and graphs of each structure."""

    def run():
        elbo = make_elbo("tracegraph" if after % 2 else "trace", spec)
        objective = CompiledELBO(elbo, builder=interpreted) if compiled else elbo
        return SVI(*labelled(), OptimizerSpec("adam", lr=0.01), objective)

    def rest(svi, calls):
        losses = [svi.step(*call) for call in calls]
        return losses, {name: value.detach().clone() for name, value in svi.parameters().items()}

    calls = [(X, Y), (X,), (X, Y), (X,), (X,), (X, Y), (X[:4],), (X,)]
    first = run()
    torch.manual_seed(1)
    for call in calls[:after]:
        first.step(*call)
    state, stream = copy.deepcopy(first.state_dict()), torch.get_rng_state()
    expected = rest(first, calls[after:])
    second = run()
    second.load_state_dict(state, X, Y)
    torch.set_rng_state(stream)
    found = rest(second, calls[after:])
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    assert all(torch.equal(found[1][name], value) for name, value in expected[1].items())
