"""What people pass in place of what is meant: it works, or one line names the argument and the remedy.

A table of calls. An answer is a pattern of the error's one line, or None where the call works.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from guides import AmortizedGuide
from models import VAE
from pathscore import SVI, CompiledELBO, Training, fit, make_elbo, measure
from pathscore.errors import PathscoreError

X = (torch.arange(20 * 64).reshape(20, 64) % 3 == 0).float()
SIZES = {"layers": (2,), "hidden": (4,)}

DATA = {
    "float32": (X, None),
    "a numpy array": (X.numpy(), "x is a ndarray: pass a tensor of rows|got ndarray: convert it"),
    "a list": (X.tolist(), "x is a list: pass a tensor|got list: convert it"),
    "float64": (X.double(), r"x is torch.float64 and the parameters are torch.float32: pass x.to\(torch.float32\)"),
    "integers": (X.long(), "x is torch.int64"),
    "Booleans": (X.bool(), "x is torch.bool"),
    "images": (X.reshape(20, 8, 8), r"x has shape \(20, 8, 8\), .* rows \(B, 64\): pass x.flatten\(1\)"),
    "images with a channel": (X.reshape(20, 1, 8, 8), r"pass x.flatten\(1\)"),
    "one row": (X[0], r"pass x\[None\]|pass a tensor with two axes"),
    "another width": (X[:, :60], "make it with data_size=60"),
    "0 to 255": (255 * X, "site 'x': a Bernoulli takes zeros and ones: binarise them"),
    "NaN": (X * float("nan"), "a Normal gets NaN as its loc: look for NaN in the data"),
}


def pair(**options):
    return VAE(64, **SIZES, **options), AmortizedGuide(64, **SIZES, **options)


def answers(call, pattern: str | None) -> None:
    if pattern is None:
        call()
        return
    with pytest.raises(PathscoreError, match=pattern) as said:
        call()
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("verb", ["step", "fit", "measure"])
def test_data_of_every_kind(name, verb):
    x, pattern = DATA[name]
    calls = {
        "step": lambda: SVI(*pair(), "adam").step(x),
        "fit": lambda: fit(SVI(*pair(), "adam"), x, Training(epochs=1, batch_size=20, quiet=True)),
        "measure": lambda: measure(*pair(), x, replicates=20, estimators="pathwise"),
    }
    answers(calls[verb], pattern)


CALLS = {
    "rate of a named optimiser": (lambda: SVI(*pair(), "adam(lr=0.03)").step(X), None),
    "unknown option": (lambda: SVI(*pair(), "adam(rate=1)"), "unknown option of adam 'rate': choose from betas"),
    "unreadable options": (lambda: SVI(*pair(), "adam(0.03)"), r"cannot read 'adam\(0.03\)'"),
    "value out of range": (lambda: SVI(*pair(), "adam(lr=-1)"), "lr must be a positive number"),
    "objective as optimiser": (lambda: SVI(*pair(), "trace"), "'trace', an objective: name it as loss='trace'"),
    "named objective": (lambda: SVI(*pair(), "adam", "trace").step(X), None),
    "objective with particles": (lambda: SVI(*pair(), "adam", loss="iwae(num_particles=3)").step(X), None),
    "misspelt objective": (lambda: SVI(*pair(), "adam", loss="iwea"), "did you mean 'iwae'"),
    "number as objective": (lambda: SVI(*pair(), "adam", loss=3), "loss is a int"),
    "no model": (lambda: SVI(None, pair()[1]), "model is a NoneType: give a Pyro program"),
    "option of an estimator": (lambda: make_elbo("trace", "gumbel(temprature=1)"), "did you mean 'temperature'"),
    "estimator without options": (
        lambda: make_elbo("trace", "z=disarm(temp=1)"),
        "disarm takes no options, got 'temp'",
    ),
    "list of estimators": (lambda: make_elbo("trace", ["disarm"]), r"\['disarm'\] is no estimator"),
    "fraction of a particle": (lambda: make_elbo("iwae", None, 2.5), "--particles must be a whole number, got 2.5"),
    "one size": (lambda: VAE(64, layers=16, hidden=8), None),
    "size as text": (lambda: VAE(64, layers="16"), r"layers takes sizes of layers, as in layers=\(16,\), got '16'"),
    "fractions": (lambda: AmortizedGuide(64, hidden=(1.5,)), "hidden takes whole numbers"),
    "width as text": (lambda: VAE("64"), "data_size takes a whole number of at least 1, got '64'"),
    "epochs alone": (lambda: fit(SVI(*pair(), "adam"), X, 10), r"training is 10: give Training\(epochs=10\)"),
    "replicates as text": (lambda: measure(*pair(), X, replicates="100"), "replicates must be a whole number"),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name):
    answers(*CALLS[name])


def own(x):
    w = pyro.param("w", torch.zeros(3))
    with pyro.plate("d", len(x)):
        z = pyro.sample("z", dist.Normal(torch.as_tensor(x @ w), 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=torch.zeros(len(x)))


def own_guide(x):
    with pyro.plate("d", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("m", torch.zeros(())), 1.0).expand([len(x)]))


@pytest.mark.parametrize(
    ("x", "pattern"),
    [
        (torch.ones(4, 3), None),
        (torch.ones(4, 3).double(), "argument 1 is torch.float64 and the parameters are torch.float32"),
        (np.ones((4, 3)), "argument 1 is a numpy array: pass a tensor"),
    ],
)
def test_arguments_of_somebodys_own_program(x, pattern):
    answers(lambda: SVI(own, own_guide, "adam").step(x), pattern)


def test_an_error_that_no_argument_explains_stays_as_it_is():
    def broken(x):
        raise AttributeError("no such thing")

    with pytest.raises(AttributeError, match="no such thing"):
        SVI(broken, own_guide, "adam").step(torch.ones(4, 3))


def test_reprs_say_what_things_are():
    svi = SVI(*pair(), "adam", CompiledELBO(make_elbo("iwae", "z1=pathwise", 5)))
    assert repr(svi).startswith("SVI(model=VAE, guide=AmortizedGuide, ImportanceELBO(z1=pathwise, K = 5), compiled, 0 ")
    assert repr(svi.compiled) == "CompiledELBO(ImportanceELBO(z1=pathwise, K = 5), 0 graphs)"
    assert repr(make_elbo("trace")) == "Trace_ELBO(Pyro's own gradient, K = 1)"
    assert "SVI(model=own, guide=own_guide, Trace_ELBO" in repr(SVI(own, own_guide))
