"""A batch without plates: the remedy names every dimension that lacks one, with its true size."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pathscore import SVI, evaluate, make_elbo
from pathscore.errors import PathscoreError, UsageError, in_short
from pathscore.svi.complaints import explain


def model(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(x.shape), 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    pyro.sample("z", dist.Normal(pyro.param("l", torch.zeros(x.shape)), 1.0))


@pytest.mark.parametrize("shape", [(20, 2), (7, 3)])
@pytest.mark.parametrize("spec", [None, "pathwise"])
def test_training_names_both_dimensions(shape, spec):
    rows, columns = shape
    wanted = rf"pyro.plate\('data', {rows}, dim=-2\), pyro.plate\('data_1', {columns}, dim=-1\).*to_event\(2\)"
    with pytest.raises(UsageError, match=wanted):
        SVI(model, guide, "adam", make_elbo("trace", spec, max_plate_nesting=2)).step(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(20, 2), (7, 3)])
def test_evaluation_names_both_dimensions(shape):
    rows, columns = shape
    wanted = rf"sizes {rows} and {columns} .*pyro.plate\(…, {rows}, dim=-2\) and pyro.plate\(…, {columns}, dim=-1\)"
    with pyro.get_param_store().scope(), pytest.raises(UsageError, match=wanted):
        evaluate(
            lambda x: model(x), lambda x: pyro.sample("z", dist.Normal(torch.zeros(x.shape), 1.0)), torch.zeros(shape)
        )


@pytest.mark.parametrize(
    ("expected", "actual", "remedy"),
    [
        ("", "6", r"with pyro.plate('data', 6):"),
        ("20", "20, 2", "its last dimension, of size 2, part of one event with .to_event(1)"),
        ("20", "20, 2, 3", "its last 2 dimensions part of one event with .to_event(2)"),
        ("20", "7, 20", "pyro.plate('data', 7, dim=-2)"),
    ],
)
def test_the_dimension_at_fault(expected, actual, remedy):
    complaint = f'at site "x", invalid log_prob shape\n  Expected [{expected}], actual [{actual}]'
    assert remedy in str(explain(ValueError(complaint)))


def test_errors_of_programs_are_one_line():
    def failing():
        pyro.sample("z", dist.Normal(0.0, 1.0))
        raise UsageError("use another")

    with pytest.raises(PathscoreError) as found:
        pyro.poutine.trace(failing).get_trace()
    assert str(found.value) == "use another"
    assert in_short(RuntimeError("a\n  b\nTrace Shapes:\n z dist |")) == "RuntimeError: a b"
