"""Runs with the same parameter names stay apart, in whatever order and nesting, and what Pyro's store shows of them."""

import inspect

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal

import pathscore
from pathscore import SVI, OptimizerSpec, evaluate, evaluation, examine, measure, to_arviz
from pathscore.diagnostics import Effort
from pathscore.svi.pairs import UntrainedWarning

X = 5 + torch.linspace(-1, 1, 20)


def model(x):
    m = pyro.sample("m", dist.Normal(0.0, 10.0))
    with pyro.plate("d", len(x)):
        pyro.sample("x", dist.Normal(m, 1.0), obs=x)


def guide(x):
    pyro.sample("m", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 0.3))


def local_guide(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    with pyro.plate("d", len(x)):
        pyro.sample("z", dist.Normal(loc, 0.3))


def local_model(x):
    with pyro.plate("d", len(x)):
        pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 10.0)), 1.0), obs=x)


def run(pair=(model, guide), x=X, steps=60, **options):
    torch.manual_seed(0)
    svi = SVI(*pair, OptimizerSpec(lr=0.2), Trace_ELBO(), **options)
    for _ in range(steps):
        svi.step(x)
    return svi


def loc(svi):
    """What the run itself says, in each of the ways to ask it."""
    with svi.scope():
        found = [pyro.param("loc").item(), svi.parameters()["loc"].item(), svi.state_dict()["params"]["loc"].item()]
    assert len(set(found)) == 1
    return found[0]


class TestApart:
    @pytest.mark.parametrize("nested", [False, True])
    def test_a_run_is_the_same_beside_another(self, nested):
        """To the bit: the other one steps in between, within the scope of the first or outside of it."""
        alone = run(steps=12)
        first, other = run(steps=0), SVI(model, guide, OptimizerSpec(lr=0.2), Trace_ELBO())
        torch.manual_seed(0)
        for _ in range(12):
            first.step(X)
            with torch.random.fork_rng():
                if nested:
                    with first.scope():
                        other.step(X - 10)
                else:
                    other.step(X - 10)
            assert loc(other) < 0 < loc(first)
        assert loc(first) == loc(alone) != loc(other)

    def test_the_store_shows_the_run_that_took_the_latest_step(self):
        first, second = run(), run(x=X - 10)
        assert pyro.param("loc").item() == pytest.approx(-5, abs=0.3)
        first.step(X)
        assert pyro.param("loc").item() == loc(first) == pytest.approx(5, abs=0.3)
        assert pyro.get_param_store().param_name(second.parameters()["loc"]) is None
        with second.scope():
            assert pyro.param("loc").item() == pytest.approx(-5, abs=0.3)
        assert to_arviz(second, X - 10, 50, seed=0)["posterior"]["m"].values.mean() == pytest.approx(-5, abs=0.3)
        assert pyro.param("loc").item() == loc(first)

    def test_steps_inside_the_own_scope_are_seen_once_it_is_left(self):
        svi = run(steps=0)
        with svi.scope():
            svi.step(X)
        assert pyro.param("loc").item() == loc(svi) != 0

    @pytest.mark.parametrize("make", [AutoNormal, AutoMultivariateNormal, AutoDelta])
    def test_autoguides_keep_their_state_when_read_outside(self, make):
        """Both guides have the same names: Pyro gives the one that is read outside the tensors of the other."""
        guides = make(model), make(model)
        first, second = (run((model, g), x) for g, x in zip(guides, (X, X - 10), strict=True))
        before = {name: value.clone() for name, value in first.state_dict()["modules"]["guide"].items()}
        Predictive(model, guide=guides[0], num_samples=20)(X)
        state = first.state_dict()
        assert not state["params"] and all(torch.equal(before[n], v) for n, v in state["modules"]["guide"].items())
        again = SVI(model, make(model), OptimizerSpec(), Trace_ELBO())
        again.load_state_dict(state, X)
        with again.scope():
            assert again.guide.median(X)["m"].item() == pytest.approx(5, abs=0.5)
        with second.scope():
            assert guides[1].median(X)["m"].item() == pytest.approx(-5, abs=0.5)

    def test_the_store_of_the_user_is_left_alone_when_nothing_is_published(self):
        pyro.param("loc", torch.tensor(99.0))
        assert loc(run(publish=False)) == pytest.approx(5, abs=0.3) and pyro.param("loc").item() == 99


QUICK = {
    to_arviz: {"draws": 4},
    examine: {"names": ["importance"], "effort": Effort(draws=20)},
    measure: {"estimators": ["pathwise"], "replicates": 20, "warmup": 0},
    evaluate: {"samples": 2, "importance_samples": 2},
}


class TestEvaluations:
    """The planted fault is the silence: first values pass for a posterior."""

    def test_none_is_forgotten(self):
        pairs = {getattr(pathscore, name) for name in pathscore.__all__ if _takes_a_pair(getattr(pathscore, name))}
        assert pairs == set(QUICK)
        functions = [vars(evaluation)[name] for name in evaluation.__all__ if _takes_a_pair(vars(evaluation)[name])]
        assert len(functions) == 10 and all(hasattr(function, "__wrapped__") for function in functions)

    @pytest.mark.parametrize("function", QUICK)
    def test_a_parameter_that_an_evaluation_makes_is_named(self, function):
        svi = run((local_model, local_guide), publish=False, steps=2)
        with pytest.warns(UntrainedWarning, match=rf"{function.__name__} made 'loc', .*{function.__name__}\(svi, …\)"):
            function(local_model, local_guide, X, **QUICK[function])
        function(svi, X, **QUICK[function])
        evaluation.importance_bound(svi, X, num_particles=2)
        with svi.scope():
            function(local_model, local_guide, X, **QUICK[function])
        with pytest.warns(UntrainedWarning, match="made 'loc', .*: take steps of this SVI first"):
            function(SVI(local_model, local_guide), X, **QUICK[function])

    def test_an_autoguide_that_nothing_has_trained_and_one_that_was(self):
        auto = AutoNormal(model)
        with pytest.warns(UntrainedWarning, match=r"to_arviz made 'AutoNormal\.locs\.m', 'AutoNormal\.scales\.m'"):
            to_arviz(model, auto, X, 4)
        trained = AutoNormal(model)
        run((model, trained), steps=2)
        pyro.clear_param_store()
        to_arviz(model, trained, X, 4)

    def test_saved_values_that_wait_for_the_program_are_no_first_values(self):
        state = run().state_dict()
        pyro.clear_param_store()
        again = SVI(model, guide, OptimizerSpec(), Trace_ELBO())
        again.load_state_dict(state)
        assert to_arviz(again, X, 50, seed=0)["posterior"]["m"].values.mean() == pytest.approx(5, abs=0.3)


def _takes_a_pair(function):
    if not inspect.isfunction(function):
        return False
    return list(inspect.signature(function).parameters)[:2] == ["model", "guide"]


def test_a_restored_run_has_its_parameters_before_its_first_step(recwarn):
    """In its scope too, where model and guide are handed over: the saved values wait for the first pass."""
    restored = SVI(local_model, local_guide, OptimizerSpec(lr=0.2), Trace_ELBO())
    restored.load_state_dict(run((local_model, local_guide), publish=False, steps=2).state_dict())
    with restored.scope():
        measure(local_model, local_guide, X, **QUICK[measure])
    assert not [warning for warning in recwarn if warning.category is UntrainedWarning]
