"""Programs whose sites depend on the call: one plan for each structure, learned state by site, right gradients."""

import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch import nn

from pathscore import SVI, make_elbo
from pathscore.elbos import structures
from pathscore.elbos.site import SiteELBO
from pathscore.errors import UsageError

DIRECTIONS = torch.eye(3)


class Labelled:
    """z ~ N(0, 1), y ~ Categorical, x ~ N(z + f(y), 1): with the labels y, or without."""

    def __init__(self):
        torch.manual_seed(0)
        self.classes, self.encoder = nn.Linear(1, 3), nn.Linear(4, 2)

    def model(self, x, y=None):
        with pyro.plate("d", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            y = pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(3)), obs=y)
            pyro.sample("x", dist.Normal(z + (y * torch.tensor([-1.0, 0.0, 2.0])).sum(-1), 1.0), obs=x)

    def guide(self, x, y=None):
        pyro.module("classes", self.classes)
        pyro.module("encoder", self.encoder)
        with pyro.plate("d", len(x)):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=self.classes(x[..., None])))
            h = self.encoder(torch.cat([x[..., None].expand(*y.shape[:-1], 1), y], -1))
            pyro.sample("z", dist.Normal(h[..., 0], h[..., 1].exp()))


X = torch.linspace(-1, 2, 8)
Y = DIRECTIONS[torch.arange(8) % 3]


@pytest.mark.parametrize("elbo", ["trace", "tracegraph", "iwae", "vimco"])
@pytest.mark.parametrize(
    "spec", ["auto", "y=enum,z=pathwise", "y=rebar,z=pathwise", "y=disarm,z=pathwise", "score-avg"]
)
def test_calls_with_and_without_labels_train_in_turn(elbo, spec):
    program = Labelled()
    svi = SVI(program.model, program.guide, "adam", make_elbo(elbo, spec, num_particles=2))
    losses = [svi.step(X, Y) if i % 2 else svi.step(X) for i in range(6)]
    assert all(map(math.isfinite, losses))


def gradients(program, elbo, *args):
    with pyro.get_param_store().scope():
        elbo.loss_and_grads(program.model, program.guide, *args)
    found = [
        None if p.grad is None else p.grad.clone() for m in (program.classes, program.encoder) for p in m.parameters()
    ]
    for module in (program.classes, program.encoder):
        module.zero_grad()
    return found


def test_each_call_has_the_gradient_of_an_objective_that_met_no_other():
    """The planted fault is one plan for both: the second call would be laid out as the first."""
    program, both = Labelled(), SiteELBO("y=enum,z=pathwise", max_plate_nesting=1)
    for call in ((X,), (X, Y), (X,), (X, Y)):
        torch.manual_seed(1)
        found = gradients(program, both, *call)
        torch.manual_seed(1)
        spec = "y=enum,z=pathwise" if len(call) == 1 else "z=pathwise"
        alone = gradients(program, SiteELBO(spec, max_plate_nesting=1), *call)
        for a, b in zip(found, alone, strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)


def test_learned_state_belongs_to_the_site_and_explain_counts_the_structures():
    program, elbo = Labelled(), SiteELBO("z=score-avg,y=score-avg", max_plate_nesting=1)
    gradients(program, elbo, X)
    kept = elbo.estimators["z"]
    gradients(program, elbo, X, Y)
    assert elbo.estimators["z"] is kept and set(elbo.estimators) == {"y", "z"}
    with pyro.get_param_store().scope():
        text = elbo.explain(program.model, program.guide, X, Y)
    assert "one of 2 structures" in text and "\ny " not in text


def chain(x, mask):
    transition = torch.tensor(0.8)
    with pyro.plate("b", len(x)):
        z = torch.zeros(())
        for t in pyro.markov(range(x.shape[1])):
            with poutine.mask(mask=mask[:, t]):
                z = pyro.sample(f"z_{t}", dist.Normal(transition * z, 1.0))
                pyro.sample(f"x_{t}", dist.Normal(z, 0.5), obs=x[:, t])


def chain_guide(x, mask):
    weight = pyro.param("w", torch.tensor(0.5))
    with pyro.plate("b", len(x)):
        for t in pyro.markov(range(x.shape[1])):
            with poutine.mask(mask=mask[:, t]):
                pyro.sample(f"z_{t}", dist.Normal(weight * x[:, t], 0.5))


def batch(steps):
    return torch.randn(6, steps), torch.arange(steps) < torch.randint(1, steps + 1, (6, 1))


@pytest.mark.parametrize("elbo", ["trace", "tracegraph", "iwae"])
def test_sequences_of_different_lengths(elbo):
    torch.manual_seed(0)
    svi = SVI(chain, chain_guide, "adam", make_elbo(elbo, "z_*=score-avg", num_particles=2))
    losses = [svi.step(*batch(steps)) for steps in (5, 7, 3, 7, 5)]
    assert all(map(math.isfinite, losses))


def test_a_state_of_several_structures_is_saved_and_restored(tmp_path):
    def run():
        torch.manual_seed(0)
        program = Labelled()
        return SVI(program.model, program.guide, "adam", make_elbo("trace", "y=nvil,z=pathwise"))

    straight, saved = run(), run()
    for svi in (straight, saved):
        torch.manual_seed(5)
        for call in ((X,), (X, Y), (X,)):
            svi.step(*call)
    torch.save(saved.state_dict(), tmp_path / "state.pt")
    resumed = run()
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), X)
    for svi in (straight, resumed):
        torch.manual_seed(6)
        for call in ((X, Y), (X,)):
            svi.step(*call)
    a, b = straight.parameters(), resumed.parameters()
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_named_site_that_is_observed_waits_with_a_warning_and_a_misspelt_one_is_refused():
    program, elbo = Labelled(), SiteELBO("y=enum", max_plate_nesting=1)
    with pytest.warns(UserWarning, match="observed in this call: it waits"):
        gradients(program, elbo, X, Y)
    with pytest.raises(UsageError, match="no sample site matches 'yy'"):
        gradients(program, SiteELBO("yy=enum", max_plate_nesting=1), X)


def test_numbers_that_change_make_no_other_call_and_shapes_do():
    kind = structures.kind_of_call
    assert kind((X, 0.1), {}) == kind((X, 0.2), {}) and kind((X,), {"n": 3}) == kind((X,), {"n": 4})
    assert kind((X,), {}) != kind((X[:3],), {}) and kind((X, None), {}) != kind((X, Y), {})
    assert kind((X,), {"flag": True}) != kind((X,), {"flag": False})


def test_batches_of_another_size_share_a_plan():
    program, elbo = Labelled(), SiteELBO("auto", max_plate_nesting=1)
    with pyro.get_param_store().scope():
        plans = {id(elbo.prepare(program.model, program.guide, X[:n])) for n in (8, 5, 3)}
    assert len(plans) == 1
