"""Programs that do not broadcast run pass by pass, with the numbers of Pyro's own loop and of one pass for all rows."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from torch import nn

from pathscore import SVI, make_elbo
from pathscore.elbos.keeping import same_laws
from pathscore.elbos.site import SiteELBO
from pathscore.errors import UsageError
from pathscore.estimators import ESTIMATORS
from pathscore.programs.broadcasting import BroadcastingWarning, obstacle

Y = torch.tensor([-1.9, -0.2, 1.4, 2.2, 0.3])
STARTS = {"l": torch.tensor([-1.0, 0.0, 1.0]), "c": torch.tensor(3.0), "o": torch.linspace(-0.5, 0.5, 15).view(5, 3)}


def mixture(y):
    """`locs[a]` mixes rows with components: right for one particle only."""
    locs = pyro.sample("locs", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    s = pyro.sample("s", dist.Gamma(2.0, 2.0))
    with pyro.plate("d", len(y)):
        a = pyro.sample("a", dist.Categorical(torch.ones(3)))
        pyro.sample("y", dist.Normal(locs[a], s), obs=y)


def assignments(y):
    l, c, o = (pyro.param(name, start.clone()) for name, start in STARTS.items())
    pyro.sample("locs", dist.Normal(l, 0.5).to_event(1))
    pyro.sample("s", dist.Gamma(c, 2.0))
    with pyro.plate("d", len(y)):
        pyro.sample("a", dist.Categorical(logits=o))


def gradients(elbo, model, guide, *args, seed=0):
    with pyro.get_param_store().scope(), pyro.validation_enabled():
        with torch.random.fork_rng(), torch.no_grad():
            guide(*args)
        torch.manual_seed(seed)
        loss = elbo.loss_and_grads(model, guide, *args)
        return loss, {n: p.grad.clone() for n, p in pyro.get_param_store().named_parameters()}


def same(a, b):
    assert a[0] == pytest.approx(b[0], rel=1e-5)
    for name in a[1]:
        torch.testing.assert_close(a[1][name], b[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "cls"), [("trace", Trace_ELBO), ("tracegraph", TraceGraph_ELBO)])
@pytest.mark.parametrize("spec", [None, "a=score,*=pathwise"])
def test_particles_are_those_of_pyros_own_loop(name, cls, spec):
    theirs = gradients(cls(num_particles=4, max_plate_nesting=1), mixture, assignments, Y)
    with pytest.warns(BroadcastingWarning, match=r"once for each particle.*Vindex\(locs\)"):
        ours = gradients(make_elbo(name, spec, num_particles=4), mixture, assignments, Y)
    same(ours, theirs)


def bits(y):
    with pyro.plate("d", len(y)):
        b = pyro.sample("b", dist.Bernoulli(torch.full((3,), 0.4)).to_event(1))
        pyro.sample("y", dist.Normal(b.sum(-1) + 0.3 * b[..., 0] * b[..., 1], 1.0), obs=y)


def bits_guide(y):
    with pyro.plate("d", len(y)):
        pyro.sample("b", dist.Bernoulli(logits=pyro.param("o", STARTS["o"][: len(y)].clone())).to_event(1))


def classes(y):
    with pyro.plate("d", len(y)):
        b = pyro.sample("b", dist.OneHotCategorical(torch.tensor([0.2, 0.3, 0.5])))
        pyro.sample("y", dist.Normal((b * torch.tensor([-2.0, 0.0, 2.0])).sum(-1), 1.0), obs=y)


def classes_guide(y):
    with pyro.plate("d", len(y)):
        pyro.sample("b", dist.OneHotCategorical(logits=pyro.param("o", STARTS["o"][: len(y)].clone())))


def normals(y):
    with pyro.plate("d", len(y)):
        b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(b.sum(-1), 1.0), obs=y)


def normals_guide(y):
    with pyro.plate("d", len(y)):
        pyro.sample("b", dist.Normal(pyro.param("o", STARTS["o"][: len(y)].clone()), 0.7).to_event(1))


PROGRAMS = {"bernoulli": (bits, bits_guide), "onehot": (classes, classes_guide), "normal": (normals, normals_guide)}
CASES = [
    (family, name)
    for name, cls in ESTIMATORS.items()
    for family in PROGRAMS
    if name != "auto" and not cls.perturbs_rows and (cls.families is None or family in cls.families)
    if family == "normal" or name not in ("pathwise", "stl")
]


COMPARING = ("stl", "rloo", "group-mean", "grpo")
"""Estimators that importance weights refuse."""


@pytest.mark.parametrize(
    ("elbo", "family", "name"),
    [("trace", *case) for case in CASES] + [("iwae", *case) for case in CASES if case[1] not in COMPARING],
)
def test_rows_are_those_of_one_pass(elbo, family, name):
    """One site and K particles: the random stream is the same, so the estimates are, for every estimator."""
    two_draws = name in ("rebar", "relax")  # of the noise, which a loop draws particle by particle
    particles = max(1 if elbo == "trace" or two_draws else 2, ESTIMATORS[name].min_particles)
    found = []
    for one_pass in (True, False):
        torch.manual_seed(1)
        objective = make_elbo(elbo, name, num_particles=particles, vectorize_particles=one_pass)
        found.append(gradients(objective, *PROGRAMS[family], Y[:2]))  # few: torch draws 16 normals in another order
    same(*found)


def test_a_program_that_broadcasts_runs_in_one_pass_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan_of = SiteELBO("enum", num_particles=2)
        gradients(plan_of, classes, classes_guide, Y)
    assert plan_of.prepare(classes, classes_guide, Y).obstacle is None


def test_particles_that_must_be_one_pass_are_refused_with_site_shape_and_remedy():
    for spec in (None, "score"):
        with pytest.raises(UsageError, match=r"site 'y' has log-probabilities of shape .*expected.*broadcasts over"):
            gradients(make_elbo("trace", spec, num_particles=2, vectorize_particles=True), rowless, weights, Y)
    with pytest.raises(UsageError, match=r"site 'y' has log-prob.*dreg cuts.*--elbo iwae"):
        gradients(make_elbo("dreg", num_particles=2), rowless, weights, Y)
    with pytest.raises(UsageError, match="TailAdaptiveELBO needs all particles in one pass"):
        gradients(make_elbo("tail-adaptive", num_particles=2), rowless, weights, Y)


def rowless(y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
    with pyro.plate("d", len(y)):
        mean = (w.unsqueeze(-2) if w.dim() > 1 else w).sum(-1)
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def weights(y):
    pyro.sample("w", dist.Normal(pyro.param("o", torch.zeros(1)), 1.0).to_event(1))


def swapped(y):
    """Every shape is right, and the rows are turned round: only their values tell."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("d", len(y)):
        pyro.sample("y", dist.Normal(w.flip(0) if w.ndim else w, 1.0), obs=y)


def swapped_guide(y):
    pyro.sample("w", dist.Normal(pyro.param("o", torch.tensor(0.3)), 1.0))


def test_rows_that_mix_in_values_alone_are_found():
    assert "site 'y' has other log-probabilities" in (obstacle(swapped, swapped_guide, (Y,), {}, 1) or "")


def test_noise_of_the_programs_own_and_running_averages_are_no_obstacle():
    norm = nn.BatchNorm1d(1)

    def noisy(y):
        z = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("d", len(y)):
            mean = norm(y[:, None])[:, 0] + 0.1 * torch.randn(len(y))
            pyro.sample("y", dist.Normal(z + mean, 1.0), obs=y)

    before = norm.running_mean.clone()
    assert obstacle(noisy, swapped_guide, (Y,), {}, 1) is None
    assert torch.equal(norm.running_mean, before)


def test_subsamples_are_one_for_all_rows():
    met = []

    def data(y):
        with pyro.plate("d", 5, subsample_size=2) as index:
            met.append(index)
            a = pyro.sample("a", dist.Bernoulli(0.5))
            pyro.sample("y", dist.Normal(a, 1.0), obs=y[index])

    def draws(y):
        o = pyro.param("o", torch.zeros(5))
        with pyro.plate("d", 5, subsample_size=2) as index:
            pyro.sample("a", dist.Bernoulli(logits=o[index]))

    elbo = SiteELBO("disarm", num_particles=2, vectorize_particles=False)
    gradients(elbo, data, draws, Y)
    met.clear()
    gradients(elbo, data, draws, Y, seed=3)
    assert len(met) == 4 and all(torch.equal(index, met[0]) for index in met)


def test_explain_says_how_rows_are_run_and_svi_trains():
    guide = assignments
    with pytest.warns(BroadcastingWarning):
        svi = SVI(mixture, guide, "adam", make_elbo("trace", "auto", num_particles=2))
        losses = [svi.step(Y) for _ in range(3)]
    assert all(map(torch.isfinite, torch.tensor(losses)))
    with svi.scope():
        assert "model evaluations per step, pass by pass" in svi.elbo.explain(mixture, guide, Y)


def test_the_trial_is_hidden_from_what_watches_a_step():
    with pyro.poutine.trace() as seen:
        obstacle(bits, bits_guide, (Y,), {}, 1)
    assert {name for name, site in seen.trace.nodes.items() if site["type"] == "sample"} == set()


@pytest.mark.parametrize("asked", ["probs", "logits"])
def test_laws_are_compared_whichever_parameters_they_have_computed(asked):
    """One binomial was asked for its probabilities, the other was not; found by a random program."""
    laws = [dist.Binomial(3, logits=torch.tensor([0.2, -0.4])).to_event(0) for _ in range(2)]
    other = dist.Binomial(3, logits=torch.tensor([0.2, 0.4]))
    getattr(laws[0], asked)
    assert same_laws(laws[0], laws[1]).all() and same_laws(laws[1], laws[0]).all()
    assert same_laws(laws[0], other).tolist() == [True, False]
