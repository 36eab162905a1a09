"""`SiteELBO` as a piece of Pyro: equal to Pyro's own objectives, at home in any program, refusing what is wrong."""

import warnings
from itertools import count, pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from proof_programs import Program
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal
from pyro.optim import Adam
from torch import nn

from pathscore.elbos.site import SiteELBO
from pathscore.errors import UsageError
from pathscore.estimators import ESTIMATORS, REBAR, RLOO, DiSARM, Enumerate, MovingAverage, NeuralBaseline, Score, parse

B, D, X = 6, 3, 5
PYRO = {"plate": Trace_ELBO, "graph": TraceGraph_ELBO}


pytestmark = pytest.mark.usefixtures("float64")


class Model(nn.Module):
    """Two Bernoulli layers, a Normal beside them and a global scale, all under one data plate of half the data."""

    def __init__(self):
        super().__init__()
        self.decoder, self.between = nn.Linear(D, X), nn.Linear(D, D)

    def forward(self, x):
        pyro.module("model", self)
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 2 * len(x), subsample=torch.arange(len(x))):
            z2 = pyro.sample("z2", dist.Bernoulli(logits=torch.zeros(D)).to_event(1))
            z1 = pyro.sample("z1", dist.Bernoulli(logits=self.between(z2)).to_event(1))
            n = pyro.sample("n", dist.Normal(0.0, 1.0))
            with pyro.poutine.mask(mask=x[..., 0] > 0.5):
                logits = self.decoder(z1) + n[..., None] + shift[..., None]
                pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


class Guide(nn.Module):
    """q(shift) q(z1 | x) q(n | x, z1) q(z2 | z1)."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.loc = nn.Linear(X, D), nn.Linear(D, D), nn.Linear(X, 1)

    def forward(self, x):
        pyro.module("guide", self)
        pyro.sample("shift", dist.Normal(0.1, 0.5))
        with pyro.plate("data", 2 * len(x), subsample=torch.arange(len(x))):
            z1 = pyro.sample("z1", dist.Bernoulli(logits=self.first(x)).to_event(1))
            pyro.sample("n", dist.Normal(self.loc(x)[..., 0] + 0.3 * z1.sum(-1), 0.5))
            pyro.sample("z2", dist.Bernoulli(logits=self.second(z1)).to_event(1))


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return Model(), Guide(), torch.rand(B, X).round()


def gradients(elbo, model, guide, x, seed=1):
    parameters = [*model.parameters(), *guide.parameters()]
    for p in parameters:
        p.grad = None
    torch.manual_seed(seed)
    loss = elbo.loss_and_grads(model, guide, x)
    return loss, [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


@pytest.mark.parametrize("credit", PYRO)
@pytest.mark.parametrize("particles", [1, 4])
def test_default_estimators_equal_pyro_draw_for_draw(pair, credit, particles):
    stock = PYRO[credit](num_particles=particles, max_plate_nesting=1, vectorize_particles=True)
    loss, grads = gradients(stock, *pair)
    ours, our_grads = gradients(SiteELBO(num_particles=particles, max_plate_nesting=1, credit=credit), *pair)
    assert ours == loss
    for a, b in zip(our_grads, grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_differentiable_loss_and_module_form(pair):
    model, guide, x = pair
    elbo = SiteELBO({"z*": "nvil"}, num_particles=2)
    loss, grads = gradients(elbo, *pair)
    module = SiteELBO({"z*": "nvil"}, num_particles=2)(model, guide)
    for p in module.parameters():
        p.grad = None
    torch.manual_seed(1)
    value = module(x)
    value.backward()
    assert value.item() == pytest.approx(loss, abs=1e-12)
    torch.testing.assert_close(guide.first.weight.grad, grads[4])
    assert any("estimators" in name for name, _ in module.named_parameters())


@pytest.mark.parametrize("name", ["score", "score-avg", "nvil", "rloo", "st", "reinmax"])
def test_estimators_without_rows_of_their_own_leave_the_loss(pair, name):
    """Same draws, same loss: these draw as Pyro does and report the same bound."""
    expected, _ = gradients(SiteELBO(num_particles=2), *pair)
    loss, _ = gradients(SiteELBO({"z*": name}, num_particles=2), *pair)
    assert loss == pytest.approx(expected, abs=1e-6)


class DrawsTwice(Score):
    """Planted: a draw that nothing uses moves the random stream."""

    def sample(self, fn):
        fn.sample()
        return super().sample(fn)


def test_an_estimator_that_draws_more_than_pyro_is_noticed(pair):
    expected, _ = gradients(SiteELBO(num_particles=2), *pair)
    loss, _ = gradients(SiteELBO({"z*": DrawsTwice()}, num_particles=2), *pair)
    assert loss != pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["disarm", "arm", "enum", "rebar", "muprop", "local", "gumbel"])
def test_rows_leave_the_mean_of_the_reported_bound(name):
    """N = 40 000 draws of the loss per data point against the exact ELBO; |z| ≤ 4 (false alarms 6e-5)."""
    from pathscore import exact

    n = 40_000
    single = Program("mixed", "bernoulli")
    target = -exact.elbo(single.model, single.guide, nodes=40).item()
    program = Program("mixed", "bernoulli", n)
    torch.manual_seed(0)
    loss = SiteELBO({"z": name}).loss_and_grads(program.model, program.guide) / n
    spread = 3.5  # standard deviation of one replicate's loss, an upper figure
    assert abs(loss - target) < 4 * spread / n**0.5, (loss, target)


def test_planning_consumes_no_random_numbers(pair):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    SiteELBO({"z*": "relax"}, credit="graph").prepare(*pair)
    assert torch.equal(before, torch.get_rng_state())


def test_a_program_is_planned_once_even_where_it_is_a_method_read_anew_each_step():
    program, calls = Program("one", "bernoulli", 3), count()  # a list would be put back after planning

    class Counted:
        def model(self):
            next(calls)
            program.model()

    counted, elbo = Counted(), SiteELBO("disarm", credit="graph")
    met = []
    for _ in range(3):
        elbo.loss_and_grads(counted.model, program.guide)
        met.append(next(calls))
    assert met[0] > 1 and [later - earlier for earlier, later in pairwise(met)] == [2, 2]  # one call, and our own


def test_explain_names_every_site(pair):
    text = SiteELBO({"z1": DiSARM(), "z2": RLOO(), "*": "auto"}, num_particles=3).explain(*pair)
    for word in ("shift", "z1", "disarm", "rloo", "pathwise (auto)", "data", "3 particles + 3 counterfactual rows = 6"):
        assert word in text, text


def test_closest_pattern_wins_and_the_site_itself_above_all(pair):
    model, guide, x = pair

    def own(x):
        pyro.sample("shift", dist.Normal(0.1, 0.5))
        with pyro.plate("data", 2 * len(x), subsample=torch.arange(len(x))):
            z1 = pyro.sample("z1", dist.Bernoulli(logits=guide.first(x)).to_event(1), infer={"estimator": "muprop"})
            pyro.sample("n", dist.Normal(0.0, 1.0))
            pyro.sample("z2", dist.Bernoulli(logits=guide.second(z1)).to_event(1))

    elbo = SiteELBO({"*": "auto", "z*": "rloo", "z2": Enumerate()}, num_particles=2)
    plan = elbo.prepare(model, own, x)
    names = {n: s.estimator.name for n, s in plan.sites.items()}
    assert names == {"shift": "pathwise", "z1": "muprop", "n": "pathwise", "z2": "enum"}


def test_learned_state_belongs_to_one_site_and_travels_in_the_state_dict(pair):
    elbo = SiteELBO({"z*": REBAR(), "*": "auto"})
    gradients(elbo, *pair)
    z1, z2 = elbo.estimators["z1"], elbo.estimators["z2"]
    assert z1 is not z2 and z1.eta.grad is not None and z1.eta.grad != z2.eta.grad
    fresh = SiteELBO({"z*": REBAR(), "*": "auto"})
    fresh.prepare(*pair)
    with torch.no_grad():
        z1.eta.fill_(0.3)
    fresh.estimators.load_state_dict(elbo.estimators.state_dict())
    assert fresh.estimators["z1"].eta.item() == pytest.approx(0.3)


def test_baseline_gradients_never_reach_guide_or_model(pair):
    """A baseline's regression trains the baseline, and leaves the model's gradient as it was."""
    plain = SiteELBO({"z*": Score(), "*": "auto"})
    _, expected = gradients(plain, *pair)
    elbo = SiteELBO({"z*": Score(NeuralBaseline(4)), "*": "auto"})
    elbo.prepare(*pair)
    _, got = gradients(elbo, *pair)
    for a, b in zip(got[:4], expected[:4], strict=True):  # the model's
        torch.testing.assert_close(a, b)
    assert elbo.estimators["z1"].baselines[0].net[0].weight.grad is not None


@pytest.mark.parametrize("name", ["rebar", "relax"])
def test_training_the_control_variate_lowers_the_variance(name):
    """Variance at fixed parameters before and after 150 steps on the control variate alone (N = 2 000 replicates)."""
    program = Program("one", "bernoulli", 2000)
    elbo = SiteELBO(ESTIMATORS[name](temperature=3.0, eta=0.2))
    elbo.prepare(program.model, program.guide)
    leaf = program.parameters["z.logits"]

    def variance():
        leaf.grad = None
        torch.manual_seed(5)
        elbo.loss_and_grads(program.model, program.guide)
        return leaf.grad.var(0).sum().item()

    start = variance()
    optimiser = torch.optim.Adam(elbo.estimators.parameters(), lr=0.02)
    for _ in range(150):
        optimiser.zero_grad()
        elbo.loss_and_grads(program.model, program.guide)
        optimiser.step()
    assert variance() < 0.7 * start


@pytest.mark.parametrize("estimator", ["stl", "rloo", "disarm", "score"])
def test_no_variance_where_the_guide_is_the_posterior(estimator):
    """At q = p(z | x) the cost is constant: the gradient is 0 exactly. Planted: the score, which is not."""
    continuous = estimator == "stl"
    n = 50

    def model():
        with pyro.plate("data", n):
            if continuous:
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=torch.ones(n))
            else:
                z = pyro.sample("z", dist.Bernoulli(0.3))
                pyro.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=torch.ones(n))

    if continuous:
        parameter = torch.full((n,), 0.5, requires_grad=True)
    else:
        parameter = torch.full((n,), 0.3 * 0.8 / (0.3 * 0.8 + 0.7 * 0.2)).logit().requires_grad_()

    def guide():
        with pyro.plate("data", n):
            q = dist.Normal(parameter, 0.5**0.5) if continuous else dist.Bernoulli(logits=parameter)
            pyro.sample("z", q)

    SiteELBO(estimator, num_particles=2).loss_and_grads(model, guide)
    assert (parameter.grad.abs().max() < 1e-12) == (estimator != "score")


def lossy(how):
    """A model that reads its bit outside of tensors' sight, by `how`."""

    def model():
        b = pyro.sample("b", dist.Bernoulli(0.5))
        value = how(b)
        pyro.sample("x", dist.Normal(value, 1.0), obs=torch.tensor(3.0))

    return model


def in_place(b):
    out = torch.zeros(1)
    out[0] = b.detach().numpy().item() if not hasattr(b, "_t") else b._t.item()
    return 4 * out[0]


@pytest.mark.parametrize(
    "how", [lambda b: 4.0 * b.item(), lambda b: 4.0 if b else 0.0, in_place], ids=["item", "branch", "in place"]
)
def test_lost_provenance_is_noticed_and_credited_by_plate(how):
    """`TraceGraph_ELBO` is silently biased here (its score site never sees x); ours falls back and says so."""
    logit = torch.tensor(0.2, requires_grad=True)

    def guide():
        pyro.sample("b", dist.Bernoulli(logits=logit))

    model, elbo, grads = lossy(how), SiteELBO("score", credit="graph"), []
    with pytest.warns(UserWarning, match="credit by graph: terms depend on b"):
        elbo.prepare(model, guide)
    torch.manual_seed(0)
    for _ in range(1500):
        logit.grad = None
        elbo.loss_and_grads(model, guide)
        grads.append(-logit.grad.item())
    grads = torch.tensor(grads)
    p = torch.sigmoid(logit).item()
    exact = p * (1 - p) * ((-0.5 * (3 - 4) ** 2 + 0.5 * 9) - logit.item())
    assert abs(grads.mean() - exact) < 4 * grads.std() / 1500**0.5


def test_no_warning_where_provenance_holds(pair):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SiteELBO(credit="graph").prepare(*pair)


@pytest.mark.parametrize("guide_class", [AutoNormal, AutoMultivariateNormal, AutoIAFNormal])
def test_autoguides_train_under_stock_svi(guide_class):
    pyro.clear_param_store()

    def model(x):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    torch.manual_seed(0)
    x = torch.randn(20, 2) + 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        svi = SVI(model, guide_class(model), Adam({"lr": 0.05}), SiteELBO("auto", num_particles=2))
        losses = [svi.step(x) for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])


def test_event_shapes_beyond_one_dimension_and_two_plates():
    logits = torch.zeros(4, 1, 2, 3, requires_grad=True)

    def model():
        with pyro.plate("a", 4, dim=-2), pyro.plate("b", 5, dim=-1):
            z = pyro.sample("z", dist.Bernoulli(0.5 * torch.ones(2, 3)).to_event(2))
            pyro.sample("x", dist.Normal(z.sum((-2, -1)), 1.0), obs=torch.ones(4, 5))

    def guide():
        with pyro.plate("a", 4, dim=-2), pyro.plate("b", 5, dim=-1):
            pyro.sample("z", dist.Bernoulli(logits=logits).to_event(2))

    for name in ("disarm", "rebar", "local", "enum", "muprop", "st", "gumbel", "nvil", "measure-valued"):
        logits.grad = None
        SiteELBO(name, num_particles=2).loss_and_grads(model, guide)
        assert logits.grad.isfinite().all() and logits.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"z3": "disarm"}, "no sample site matches 'z3': sites are shift, z1, n, z2"),
        ({"n": "disarm"}, "site 'n': disarm needs a bernoulli or onehot or categorical site, not normal; legal here: "),
        ({"z1": "pathwise"}, "site 'z1': pathwise needs a reparameterised site"),
        ({"z1": "rloo"}, "rloo needs --particles 2 or more, got 1"),
        ("disrm", "unknown estimator 'disrm': did you mean 'disarm'?"),
        ("gumbel(temperature=-1)", "gumbel does not take these options: temperature must be positive"),
        ("z1=,z2=rloo", "cannot read"),
        ("z1=disarm,z1=rloo", "two estimators for site 'z1' in 'z1=disarm,z1=rloo'"),
        ("disarm,rloo", "two estimators for every site"),
    ],
)
def test_refusals_name_the_site_and_the_remedy(pair, spec, message):
    with pytest.raises(UsageError) as caught:
        SiteELBO(spec).prepare(*pair)
    assert message in str(caught.value)


def test_relaxing_a_site_whose_prior_has_no_linear_extension_is_refused():
    def model():
        pyro.sample("z", dist.Geometric(0.5))

    def guide():
        pyro.sample("z", dist.Bernoulli(0.5))

    with pytest.raises(UsageError, match="st relaxes values, and the model's geometric has no linear extension"):
        SiteELBO("st").prepare(model, guide)


def test_a_program_whose_sites_change_between_steps_is_refused():
    flag = [False]

    def guide():
        pyro.sample("a", dist.Bernoulli(0.5))
        if flag[0]:
            pyro.sample("b", dist.Bernoulli(0.5))

    elbo = SiteELBO("score")
    elbo.loss(guide, guide)
    flag[0] = True
    with pytest.raises(UsageError, match="sample site 'b' was not there at the first step"):
        elbo.loss(guide, guide)


def test_the_command_line_form():
    spec = parse("z1=gumbel(temperature=0.3, kl='relaxed'),z*=rloo,nvil")
    assert list(spec) == ["z1", "z*", "*"]
    assert spec["z1"].kl == "relaxed" and spec["z*"].name == "rloo" and spec["*"].name == "nvil"


def test_moving_average_survives_any_batch_size(pair):
    model, guide, x = pair
    elbo = SiteELBO({"z*": Score(MovingAverage(0.5)), "*": "auto"})
    for size in (6, 2, 1, 5):
        elbo.loss_and_grads(model, guide, x[:size])
    assert elbo.estimators["z1"].baselines[0].mean.shape == ()


def test_relaxed_kl_is_the_option_of_the_estimator_and_is_refused_without_one(pair):
    by_flag = gradients(SiteELBO({"z*": "gumbel", "*": "auto"}, kl="relaxed"), *pair)[1]
    by_option = gradients(SiteELBO({"z*": "gumbel(kl='relaxed')", "*": "auto"}), *pair)[1]
    discrete = gradients(SiteELBO({"z*": "gumbel", "*": "auto"}), *pair)[1]
    back = gradients(SiteELBO({"z*": "gumbel(kl='relaxed')", "*": "auto"}, kl="discrete"), *pair)[1]
    assert all(torch.equal(a, b) for a, b in zip(back, discrete, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(by_flag, by_option, strict=True))
    assert not torch.equal(by_flag[4], discrete[4])
    for kl in ("relaxed", "discrete"):
        with pytest.raises(UsageError, match=f"--kl {kl} says .*: add --estimator gumbel"):
            SiteELBO("disarm", kl=kl)


NOISY = ("nvil", "relax")  # a network that starts at random is their control variate


@pytest.mark.parametrize("estimator", [name for name in ESTIMATORS if name not in NOISY])
def test_a_site_in_a_plate_that_no_term_lies_in(estimator):
    """With its KL in closed form nothing depends on z, whose gradient is that of the KL; found by a random program."""

    def model():
        with pyro.plate("a", 2):
            pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.5))

    def guide():
        with pyro.plate("a", 2):
            pyro.sample("z", dist.Bernoulli(logits=pyro.param("phi", torch.tensor([0.4, -1.0]))))

    elbo = SiteELBO(estimator, kl="auto", credit="graph", num_particles=3)
    try:
        elbo.loss_and_grads(model, guide)
    except UsageError:
        return  # not for bits
    phi = pyro.param("phi").unconstrained()
    kl = torch.distributions.kl_divergence(dist.Bernoulli(logits=phi), dist.Bernoulli(torch.tensor(0.3))).sum()
    (exact,) = torch.autograd.grad(kl, phi)
    torch.testing.assert_close(phi.grad, exact)
