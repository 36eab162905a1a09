"""Programs that keep state feel the steps alone, not the runs that lay a step out, compare a graph or measure.

With one draw a step the losses, and what the program keeps after them, are those of Pyro's own `SVI`, bit for bit but
for rounding in a sum. Planted: state that is not put back.
"""

import random
import warnings
from contextlib import nullcontext

import numpy as np
import pyro
import pytest
import torch
from compiled_cases import interpreted
from stateful_programs import PROGRAMS

from pathscore.compiling import compiled_graph
from pathscore.compiling.compiled_elbo import CompiledELBO, EagerWarning
from pathscore.elbos import make_elbo
from pathscore.programs import untouched as module
from pathscore.programs.places import places
from pathscore.svi import SVI

STEPS = 5


def made(name):
    pyro.clear_param_store()
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    return PROGRAMS[name][0]()


def run(name, wrap=lambda elbo: elbo, spec="pathwise", particles=1):
    """Losses of a few steps of our SVI, and what the program keeps after them."""
    model, guide, args, state = made(name)
    svi = SVI(model, guide, "adam(lr=0.01)", wrap(make_elbo("trace", spec, num_particles=particles)))
    torch.manual_seed(1)
    return [svi.step(*args) for _ in range(STEPS)], state()


def run_pyros(name):
    model, guide, args, state = made(name)
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO())
    torch.manual_seed(1)
    return [svi.step(*args) for _ in range(STEPS)], state()


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("spec", ["pathwise", None])
def test_a_run_is_pyros(name, spec):
    theirs, kept = run_pyros(name)
    ours, state = run(name, spec=spec)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, kept, rtol=1e-5, atol=1e-5) if _numeric(state) else _same(state, kept)


@pytest.mark.filterwarnings("ignore:the program runs once")
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(("spec", "particles"), [("pathwise", 1), ("rloo", 2), ("stl", 1)])
def test_a_compiled_run_is_the_eager_one(name, spec, particles):
    refused = PROGRAMS[name][1]
    theirs, kept = run(name, spec=spec, particles=particles)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", EagerWarning)
        ours, state = run(name, lambda elbo: CompiledELBO(elbo, builder=interpreted), spec, particles)
    lines = {str(w.message) for w in said if w.category is EagerWarning}
    assert len(lines) == (refused is not None) and (refused is None or refused in lines.pop())
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(state, kept, rtol=1e-6, atol=1e-6) if _numeric(state) else _same(state, kept)


def looked_at(name, objective, spec, particles) -> bool:
    """Whether what the program keeps is the same after all that only looks at it."""
    model, guide, args, state = made(name)
    before = state()
    elbo = make_elbo(objective, spec, num_particles=particles)
    elbo.prepare(model, guide, *args)
    elbo.explain(model, guide, *args)
    return _is_same(state(), before)


CHOICES = [
    ("trace", "pathwise", 1),
    ("trace", "score", 1),
    ("trace", "rloo", 2),
    ("tracegraph", "nvil", 1),
    ("iwae", None, 2),
    ("vimco", None, 2),
    ("trace", None, 4),
]


@pytest.mark.filterwarnings("ignore:the program runs once")
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(("objective", "spec", "particles"), CHOICES)
def test_laying_out_a_step_changes_nothing(name, objective, spec, particles):
    assert looked_at(name, objective, spec, particles)


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_not_put_back_is_noticed(name, monkeypatch):
    monkeypatch.setattr(module, "untouched", lambda *programs: nullcontext())
    assert not looked_at(name, "trace", "score", 1)


def test_what_the_graph_leaves_out_is_noticed(monkeypatch):
    """Planted: a graph that is not told of the buffers that it writes to."""
    monkeypatch.setattr(compiled_graph, "capture", _forgetful(compiled_graph.capture))
    with pytest.warns(EagerWarning, match="changes a tensor in place"):
        run("a tensor", lambda elbo: CompiledELBO(elbo, builder=interpreted))


def _forgetful(capture):
    def planted(*args, **kwargs):
        found = capture(*args, **kwargs)
        for node in list(found.graph.graph.nodes):
            if getattr(node.target, "__name__", "").startswith(("mul_.", "add_.")):
                node.target = getattr(torch.ops.aten, node.target.__name__.split("_.")[0]).Tensor
        found.graph.recompile()
        found.written.clear()
        return found

    return planted


class Cached:
    """A program that keeps a value of its last run, as Pyro's spline transforms do."""

    def __init__(self):
        self._cache = torch.zeros(3)

    def __call__(self):
        self._cache = None
        self._cache = torch.zeros(3).add_(1.0)


def test_a_new_tensor_is_not_taken_for_one_whose_address_it_has():
    """In one of 100 runs at the least a new tensor would stand where one that was let go had been."""
    for _ in range(100):
        program = Cached()
        with module.putting_back(program) as writes:
            with writes:
                program()
            assert not writes.changed()


def test_places_are_found_through_whatever_holds_them():
    """A network in a list in a dictionary that an inner function closes over; an object behind a bound method."""
    net = torch.nn.BatchNorm1d(2)
    parts = {"nets": [net]}

    def inner(x):
        return parts["nets"][0](x)

    def outer(x):
        return inner(x)

    held = [place.values for place in places(outer)]
    assert any(values is net._buffers for values in held) and any(values is parts for values in held)


def _numeric(state) -> bool:
    return isinstance(state, torch.Tensor | list | float | int) or state is None


def _same(state, kept) -> None:
    assert _is_same(state, kept)


def _is_same(a, b) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_is_same, a, b))
    return type(a) is type(b) and a == b
