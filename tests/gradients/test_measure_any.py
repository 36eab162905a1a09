"""`measure` on any program: pass by pass, masked laws, mixed sites, a limit of time, and errors in one line."""

import time

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pathscore import measure
from pathscore.errors import UsageError
from pathscore.gradients.leaves import core
from pathscore.programs.broadcasting import BroadcastingWarning

PHI = torch.tensor([0.3, -0.4])
TABLE = torch.tensor([[1.5, -1.0], [-0.5, 2.0]])


def indexed(phi):
    """Model and guide that index a table by their draws: they do not broadcast."""

    def model():
        a = pyro.sample("a", dist.Bernoulli(0.4))
        b = pyro.sample("b", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(TABLE[int(a)][int(b)], 0.8), obs=torch.tensor(0.7))

    def guide():
        pyro.sample("a", dist.Bernoulli(logits=phi[0]))
        pyro.sample("b", dist.Bernoulli(logits=phi[1]))

    return model, guide


def exact():
    phi = PHI.clone().requires_grad_()
    bound = torch.zeros(())
    for a in (0, 1):
        for b in (0, 1):
            values = torch.tensor([float(a), float(b)])
            q = dist.Bernoulli(logits=phi).log_prob(values).sum()
            p = dist.Bernoulli(torch.tensor([0.4, 0.5])).log_prob(values).sum()
            p = p + dist.Normal(TABLE[a, b], 0.8).log_prob(torch.tensor(0.7))
            bound = bound + q.exp() * (p - q)
    return torch.autograd.grad(bound, phi)[0].double()


@pytest.mark.filterwarnings("ignore:measure made 'phi':pathscore.svi.pairs.UntrainedWarning")
@pytest.mark.parametrize("of", ["sites", "weights"])
def test_a_program_that_does_not_broadcast_is_measured_pass_by_pass(of):
    """N = 200 draws; |z| > 4.5 in one of two coordinates: false-alarm rate 1.4e-5, detectable bias 0.1 nat.

    The fault that is planted: `st` follows a path that `int(a)` has cut.
    """
    with pyro.get_param_store().scope():
        model, guide = indexed(PHI) if of == "sites" else indexed_by_parameter()
        with pytest.warns(BroadcastingWarning):
            found = measure(model, guide, estimators=["enum", "disarm", "st"], replicates=200, of=of, warmup=0)
    for row in found.rows:
        z = (row.mean - exact()) / (row.variance / 200).sqrt().clamp(min=1e-9)
        assert (z.abs().max() < 4.5) == (row.name != "st"), row


def indexed_by_parameter():
    model, _ = indexed(PHI)

    def guide():
        indexed(pyro.param("phi", PHI.clone()))[1]()

    return model, guide


def masked(inside):
    """A chain of one step, its mask inside the law or on the site: the same program."""
    mask = torch.tensor([[True], [False], [True]])

    def law(loc):
        fn = dist.Normal(loc, 0.7)
        return fn.mask(mask).to_event(1) if inside else fn.to_event(1)

    def model():
        with pyro.plate("data", 3), poutine.mask(mask=torch.tensor(True) if inside else mask[:, 0]):
            z = pyro.sample("z", law(torch.zeros(3, 2)))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1).mask(mask[:, 0]), obs=torch.ones(3, 2))

    def guide():
        with pyro.plate("data", 3), poutine.mask(mask=torch.tensor(True) if inside else mask[:, 0]):
            pyro.sample("z", law(torch.full((3, 2), 0.3)))

    return model, guide


@pytest.mark.parametrize("estimator", ["pathwise", "score"])
def test_masks_inside_a_law_are_masks(estimator):
    found = [measure(*masked(inside), estimators=estimator, replicates=50, warmup=0) for inside in (True, False)]
    a, b = (f.rows[0] for f in found)
    assert a.mean.shape == (12,) and torch.allclose(a.mean, b.mean, atol=1e-5)


def test_the_core_of_a_law_is_under_masks_events_and_expansions():
    fn = dist.Normal(0.0, 1.0).expand([4, 3]).mask(torch.ones(4, 3, dtype=torch.bool)).to_event(1)
    assert type(core(fn)) is dist.Normal


def mixed(x):
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Bernoulli(0.4))
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(y + z, 0.5), obs=x)


def mixed_guide(x):
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Bernoulli(logits=0.5 * x))
        pyro.sample("z", dist.Normal(x - y, 0.5))


X = torch.tensor([0.3, 1.2])


def test_the_other_sites_of_a_mixed_program_get_auto_and_rows_say_so():
    found = measure(mixed, mixed_guide, X, replicates=20, warmup=0)
    names = [row.name for row in found.rows]
    assert {"score", "y=disarm, z=pathwise", "y=gumbel, z=pathwise", "y=enum, z=pathwise", "y=enum, z=stl"} <= set(
        names
    )
    assert len(names) == len(set(names)) and not any("legal" in name for name in names)
    alone = measure(mixed, mixed_guide, X, estimators={"by hand": "y=disarm,z=pathwise"}, replicates=20, warmup=0)
    assert torch.equal(alone["by hand"].mean, found["y=disarm, z=pathwise"].mean)


def test_an_estimator_that_serves_no_site_is_refused():
    with pytest.raises(UsageError, match="arm needs a bernoulli"):
        measure(*masked(False), estimators="arm", replicates=4)


def test_a_limit_of_time_is_kept():
    start = time.perf_counter()
    found = measure(mixed, mixed_guide, X, estimators=["score", "score-avg"], replicates=10**7, seconds=1.0)
    assert time.perf_counter() - start < 4
    assert 2 <= found.replicates < 10**7 and found.rows[0].variance.sum() > 0


def test_a_program_that_fails_under_an_estimator_is_named_in_one_line():
    def strict(x):
        y = pyro.sample("y", dist.Bernoulli(0.4))
        if not bool(((y == 0) | (y == 1)).all()):
            raise RuntimeError("only bits here")
        pyro.sample("x", dist.Normal(y, 1.0), obs=x)

    def guide(x):
        pyro.sample("y", dist.Bernoulli(logits=torch.tensor(0.3)))

    found = measure(strict, guide, X[0], replicates=4, warmup=1)
    assert "disarm" in [row.name for row in found.rows]
    assert "RuntimeError: only bits here: leave it out" in found.refused["gumbel"]
    with pytest.raises(UsageError, match="gumbel on the sites 'y': RuntimeError: only bits here"):
        measure(strict, guide, X[0], estimators="gumbel", replicates=4, warmup=1)
    assert "\n" not in found.refused["gumbel"]
