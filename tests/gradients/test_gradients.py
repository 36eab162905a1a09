"""The gradient lab: replicates, exact references, statistics, and what it says about estimators.

Statistical tests state N and their thresholds: |z| > 4.5 in a coordinate has a false-alarm rate of 7e-6, Hotelling's p
below 1e-4 one of 1e-4; seeds are fixed. Each is beside a planted fault that it catches.
"""

import json
import time
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pyro.infer.autoguide
import pytest
import torch
from pyro import poutine

from guides import AmortizedGuide
from models import VAE
from pathscore.errors import UsageError
from pathscore.estimators import RLOO, Score
from pathscore.gradients import TOYS, make_toy, measure
from pathscore.gradients.lab import Lab
from pathscore.gradients.moments import Moments, hotelling, z_scores
from pathscore.gradients.results import MAX_Z, variance_ratio

MIN_P = 1e-4


def sound(row) -> bool:
    """Whether the row passes as unbiased."""
    return row.max_abs_z <= MAX_Z and (row.hotelling_p is None or row.hotelling_p >= MIN_P)


# Programs of every shape: each is (model, guide, args), double precision, with an exact gradient.


def global_and_local():
    x = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)

    def model(x):
        g = pyro.sample("g", dist.Bernoulli(torch.tensor(0.4, dtype=torch.float64)))
        with pyro.plate("data", 3, dim=-1):
            z = pyro.sample("z", dist.Bernoulli(torch.full((3,), 0.5, dtype=torch.float64)))
            pyro.sample("x", dist.Normal(g + 2 * z - 1, 0.8), obs=x)

    def guide(x):
        g = pyro.sample("g", dist.Bernoulli(logits=torch.tensor(0.2, dtype=torch.float64)))
        with pyro.plate("data", 3, dim=-1):
            pyro.sample("z", dist.Bernoulli(logits=x + 0.5 * g))

    return model, guide, (x,)


def subsampled():
    x = torch.linspace(-1, 1, 10, dtype=torch.float64)

    def model():
        with pyro.plate("data", 10, subsample_size=4, dim=-1) as i:
            z = pyro.sample("z", dist.Bernoulli(torch.full((4,), 0.3, dtype=torch.float64)))
            pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x[i])

    def guide():
        with pyro.plate("data", 10, subsample_size=4, dim=-1) as i:
            pyro.sample("z", dist.Bernoulli(logits=x[i]))

    return model, guide, ()


def nested_and_masked():
    x = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[True, False, True], [True, True, True]])

    def program(observed):
        with pyro.plate("outer", 3, dim=-1):
            a = pyro.sample("a", dist.Bernoulli(logits=x[0] if observed is None else torch.zeros_like(x[0])))
            with pyro.plate("inner", 2, dim=-2), poutine.mask(mask=mask):
                b = pyro.sample("b", dist.Bernoulli(logits=(x if observed is None else torch.zeros_like(x)) + a))
                if observed is not None:
                    pyro.sample("x", dist.Normal(a + b, 1.0), obs=observed)

    return (lambda: program(x)), (lambda: program(None)), ()


def mixed_families():
    def model():
        n = pyro.sample("n", dist.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0))
        b = pyro.sample("b", dist.Bernoulli(torch.tensor(0.4, dtype=torch.float64)))
        pyro.sample("x", dist.Normal(torch.sin(2 * n) + b, 0.7), obs=torch.tensor(0.9, dtype=torch.float64))

    def guide():
        n = pyro.sample("n", dist.Normal(torch.tensor(0.2, dtype=torch.float64), 0.6))
        pyro.sample("b", dist.Bernoulli(logits=0.3 + n))

    return model, guide, ()


def two_layers():
    torch.manual_seed(3)
    arguments = {"latent": "bernoulli", "layers": (3, 2), "hidden": (5,)}
    return VAE(4, **arguments).double(), AmortizedGuide(4, **arguments).double(), (torch.eye(4).double()[:2],)


PROGRAMS = (global_and_local, subsampled, nested_and_masked, mixed_families, two_layers)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("elbo", ["trace", "tracegraph"])
def test_replicates_of_any_program_agree_with_the_exact_gradient(program, elbo):
    model, guide, args = program()
    found = measure(model, guide, *args, estimators=["score", "auto"], replicates=20_000, elbo=elbo, warmup=0)
    assert found.reference.exact
    for row in found.rows:
        assert sound(row), row
        assert row.variance.shape == found.reference.gradient.shape


@pytest.mark.parametrize("elbo", ["iwae", "vimco"])
def test_importance_weighted_objectives_are_held_against_their_own_bound(elbo):
    """K = 3, N = 20 000, exact by all multisets of three of the four states."""
    toy = make_toy("bernoulli", 2)
    names = ["score", "score-avg", "disarm", "enum", "st"]
    found = measure(toy.model, toy.guide, estimators=names, elbo=elbo, particles=3, replicates=20_000)
    assert found.reference.source == "exact gradient (sum over all sets of K draws)"
    assert all(sound(row) == row.unbiased and row.particles == 3 for row in found.rows), str(found)


def test_a_shared_subsample_is_held_fixed():
    model, guide, _ = subsampled()
    lab = Lab(model, guide)
    elbo = lab.objective("enum")
    first, _ = lab.pair.draw(elbo, 3)
    second, _ = lab.pair.draw(elbo, 3)
    assert torch.equal(first[0], first[1])  # the sum has no noise, so only another subsample could move it
    assert torch.allclose(first, second, rtol=1e-12)


@pytest.mark.parametrize("kind", ["AutoNormal", "AutoMultivariateNormal"])
def test_pyro_s_own_guides_are_measured_too(kind):
    x = torch.linspace(-1, 1, 5)

    def model(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        scale = pyro.sample("scale", dist.Gamma(2.0, 2.0))
        with pyro.plate("data", 5, dim=-1):
            pyro.sample("x", dist.Normal(loc, scale), obs=x)

    guide = getattr(pyro.infer.autoguide, kind)(model)
    guide(x)
    found = measure(model, guide, x, estimators=["pathwise", "score"], replicates=1000)
    assert all(sound(row) for row in found.rows)
    low, _ = variance_ratio(found["score"], found["pathwise"])
    assert low > 10


def test_the_toy_of_the_papers_has_its_gradient():
    toy = make_toy(cost="square", target=0.45, seed=4)
    found = measure(toy.model, toy.guide, estimators=["enum", "disarm"], replicates=10_000)
    raw = 0.5 * torch.randn((1, 1), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    p = torch.sigmoid(raw).item()
    assert found.reference.gradient.item() == pytest.approx((1 - 2 * 0.45) * p * (1 - p), rel=1e-12)
    assert found["enum"].total_variance == 0 and found["enum"].max_abs_z == 0
    assert sound(found["disarm"])


def test_the_exact_gradient_of_a_toy_is_that_of_finite_differences():
    """Closed form at N(μ, σ), against differences of the closed-form bound in μ."""
    from pathscore import exact

    toy = make_toy("normal", 2)
    lab = Lab(toy.model, toy.guide)
    gradient = lab.pair.exactly(exact.gaussian.elbo)

    def bound(step):
        class Moved(poutine.messenger.Messenger):
            def _pyro_sample(self, msg):
                inner = msg["fn"].base_dist
                moved = inner.loc + torch.tensor([step, 0.0], dtype=torch.float64)
                msg["fn"] = dist.Normal(moved, inner.scale).to_event(1)

        def guide():
            with Moved():
                return toy.guide()

        return exact.gaussian.elbo(toy.model, guide).item()

    assert gradient[0].item() == pytest.approx((bound(1e-4) - bound(-1e-4)) / 2e-4, rel=1e-6)


@pytest.mark.parametrize("latent", TOYS)
def test_every_legal_estimator_is_as_unbiased_as_it_says(latent):
    """N = 10 000: unbiased rows pass, biased ones are found out (on these toys by |z| > 4.5)."""
    toy = make_toy(latent)
    found = measure(toy.model, toy.guide, replicates=10_000, warmup=20)
    assert found.reference.exact
    for row in found.rows:
        assert sound(row) == row.unbiased, row
    assert {row.name for row in found.rows} >= {"score", "score-avg", "nvil", "rloo"}


class OneTenthTooLarge(RLOO):
    """A planted fault: 10 % too large."""

    def surrogate(self, site):
        return 1.1 * super().surrogate(site)


class SeesItsSample(Score):
    """A planted fault: a baseline that has seen the draw it is used on."""

    def signal(self, site):
        return site.cost[0] - 0.1 * site.cost[0].detach()


@pytest.mark.parametrize("fault", [OneTenthTooLarge, SeesItsSample])
def test_planted_faults_are_found(fault):
    """A bias of a tenth of the gradient, at N = 200 000: z of it is .1 · SNR · √N ≥ 3 in each of six coordinates."""
    toy = make_toy("bernoulli", 3)
    found = measure(toy.model, toy.guide, estimators={"fault": fault()}, particles=4, replicates=200_000)
    assert not sound(found["fault"]), found["fault"]


def test_learned_parts_are_trained_and_then_frozen():
    toy = make_toy("bernoulli", 4)
    lab = Lab(toy.model, toy.guide)
    elbo = lab.objective("relax")
    before = {k: v.clone() for k, v in elbo.estimators.state_dict().items()}
    lab.learn(elbo, 5)
    learned = {k: v.clone() for k, v in elbo.estimators.state_dict().items()}
    assert any(not torch.equal(before[k], learned[k]) for k in before)
    lab.draw(elbo, 100)
    assert all(torch.equal(learned[k], v) for k, v in elbo.estimators.state_dict().items())
    average = lab.objective("score-avg")
    lab.learn(average, 3)
    frozen = average.estimators.state_dict()["z.baselines.0.mean"].clone()
    lab.draw(average, 100)
    assert frozen != 0 and torch.equal(frozen, average.estimators.state_dict()["z.baselines.0.mean"])


def test_every_objective_of_a_lab_learns():
    """Objectives made and let go, one after another: a new one may have the address of an old one."""
    toy = make_toy("bernoulli", 4)
    lab = Lab(toy.model, toy.guide)
    for _ in range(20):
        elbo = lab.objective("relax")
        before = {k: v.clone() for k, v in elbo.estimators.state_dict().items()}
        lab.learn(elbo, 1)
        assert any(not torch.equal(before[k], v) for k, v in elbo.estimators.state_dict().items())
        del elbo


def test_measuring_leaves_no_trace():
    model, guide, args = two_layers()
    pyro.param("mine", torch.tensor(1.0))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    weights = [p.clone() for p in model.parameters()]
    measure(model, guide, *args, estimators=["rebar", "rloo"], replicates=50, warmup=3)
    assert torch.equal(torch.rand(3), expected)
    assert set(pyro.get_param_store().keys()) == {"mine"}
    assert all(torch.equal(p, w) and p.grad is None for p, w in zip(model.parameters(), weights, strict=True))


def test_same_seed_same_numbers_and_another_seed_others():
    toy = make_toy("bernoulli", 4)
    rows = [measure(toy.model, toy.guide, estimators="disarm", replicates=500, seed=s).rows[0] for s in (1, 1, 2)]
    assert rows[0].total_variance == rows[1].total_variance != rows[2].total_variance


@pytest.mark.parametrize("latent, name", [("normal", "pathwise"), ("bernoulli", "score"), ("bernoulli", "disarm")])
def test_forty_thousand_replicates_take_less_than_a_second(latent, name):
    toy = make_toy(latent, 6)
    lab = Lab(toy.model, toy.guide)
    elbo = lab.objective(name)
    lab.pair.draw(elbo, 2)
    start = time.process_time()
    moments, _, _ = lab.draw(elbo, 40_000)
    assert moments.count == 40_000
    assert time.process_time() - start < 1.0


def test_moments_in_pieces_are_those_of_the_whole():
    g = torch.randn(1000, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64) + 5
    moments = Moments()
    for piece in g.split([1, 400, 599]):
        moments.add(piece)
    assert torch.allclose(moments.mean, g.mean(0)) and torch.allclose(moments.variance, g.var(0))
    assert torch.allclose(moments.products / 999, torch.cov(g.T))
    error = moments.variance_error()
    assert error == pytest.approx((g - g.mean(0)).square().sum(1).std().item() / 1000**0.5)


def test_the_tests_have_their_false_alarm_rates():
    """2 000 sets of 500 draws of 4 correlated Normals: p below .05 in 5 % ± 4 standard errors (1.9 %) of them."""
    mix = torch.randn(4, 4, dtype=torch.float64)
    alarms, scores = 0, []
    for _ in range(2000):
        moments = Moments()
        moments.add(torch.randn(500, 4, dtype=torch.float64) @ mix)
        alarms += hotelling(moments, torch.zeros(4, dtype=torch.float64)) < 0.05
        scores.append(z_scores(moments, torch.zeros(4, dtype=torch.float64)))
    assert 0.031 < alarms / 2000 < 0.069
    assert 0.95 < torch.stack(scores).square().mean() < 1.05


def test_a_coordinate_without_noise_is_compared_up_to_rounding():
    moments = Moments()
    moments.add(torch.tensor([[1.0, 2.0]] * 5, dtype=torch.float64) + 1e-14 * torch.randn(5, 2, dtype=torch.float64))
    assert moments.variance.sum() == 0
    assert z_scores(moments, torch.tensor([1.0, 2.0], dtype=torch.float64)).abs().max() == 0
    assert z_scores(moments, torch.tensor([1.0, 2.1], dtype=torch.float64)).abs().max() == float("inf")


def test_a_bit_that_is_never_set_is_no_bias():
    """N = 2 000 draws of a bit of probability 1e-5 beside one of ½: its gradient has seen only one side of it.

    The fault: the standard error of the draws alone takes the mean of that coordinate for biased beyond doubt.
    """
    logits = torch.tensor([-11.5, 0.3], dtype=torch.float64)

    def model():
        b = pyro.sample("b", dist.Bernoulli(logits=torch.zeros_like(logits)).to_event(1))
        pyro.sample("x", dist.Normal(3 * b.sum(-1), 1.0), obs=torch.tensor(3.0, dtype=torch.float64))

    def guide():
        pyro.sample("b", dist.Bernoulli(logits=logits).to_event(1))

    lab = Lab(model, guide)
    elbo = lab.objective("score")
    moments, _, _ = lab.draw(elbo, 2000)
    target = measure(model, guide, estimators="enum", replicates=2).reference.gradient
    assert z_scores(moments, target).abs().max() > 10
    assert z_scores(moments, target, moments.unseen([2]).square()).abs().max() < MAX_Z
    assert sound(measure(model, guide, estimators="score", replicates=2000)["score"])


def test_a_long_run_stands_in_for_the_exact_gradient_and_says_so():
    toy = make_toy("laplace", 4)  # 64⁴ nodes are out of reach
    found = measure(toy.model, toy.guide, estimators=["pathwise", "score"], replicates=2000)
    assert not found.reference.exact and "8,000 further draws of pathwise" in found.reference.source
    assert all(sound(row) and row.hotelling_p is None for row in found.rows)
    with pytest.raises(UsageError, match="every estimator named is biased"):
        toy = make_toy("bernoulli", 20)
        measure(toy.model, toy.guide, estimators=["st"], replicates=10)


def test_rows_as_json(tmp_path):
    toy = make_toy("bernoulli", 3)
    found = measure(toy.model, toy.guide, estimators=["score", "enum", "st"], replicates=1000, title=toy.title)
    found.save(tmp_path / "gradients.json")
    saved = json.loads((tmp_path / "gradients.json").read_text())
    assert saved["replicates"] == 1000 and saved["reference"].startswith("exact gradient")
    asked = (
        "name unbiased max_abs_z detectable_bias total_variance relative_variance snr cosine evaluations milliseconds"
    )
    for row in saved["estimators"]:
        assert set(asked.split()) <= row.keys()
    by_name = {row["name"]: row for row in saved["estimators"]}
    assert by_name["enum"]["snr"] is None  # infinite
    assert by_name["score"]["evaluations"] == 1 and by_name["enum"]["evaluations"] == 9
    assert not by_name["st"]["unbiased"] and "biased" in str(found)
    assert by_name["score"]["variance_by_parameter"]["z.logits"] == by_name["score"]["total_variance"]


def test_gradient_by_the_weights_agrees_with_the_exact_one():
    """N = 500 passes, exact by enumeration over the 2⁵ joint states."""
    model, guide, args = two_layers()
    found = measure(model, guide, *args, estimators=["disarm"], replicates=500, of="weights")
    assert found.reference.exact and sound(found["disarm"])
    assert len(found["disarm"].variance) == sum(p.numel() for p in guide.parameters())


def test_illegal_estimators_are_left_out_or_refused():
    toy = make_toy("normal")
    found = measure(toy.model, toy.guide, replicates=10)
    assert "disarm" in found.refused and "disarm" not in {row.name for row in found.rows}
    with pytest.raises(UsageError, match="disarm needs a bernoulli"):
        measure(toy.model, toy.guide, estimators="disarm", replicates=10)
    with pytest.raises(UsageError, match="unknown latent 'bernouli': did you mean 'bernoulli'"):
        make_toy("bernouli")
    with pytest.raises(UsageError, match="no latent site"):
        measure(lambda: pyro.sample("x", dist.Normal(0, 1), obs=torch.tensor(0.0)), lambda: None)


# Variance order, at equal model evaluations.


def trained_pair(digits, latent, steps):
    """A VAE on binarised digits after some steps of training."""
    from pathscore import SVI, make_elbo

    arguments = {"latent": latent, "layers": (16,), "hidden": (64,), "x_mean": digits.mean(0)}
    model, guide = VAE(64, **arguments), AmortizedGuide(64, **arguments)
    elbo = make_elbo("trace", "disarm" if latent == "bernoulli" else "pathwise")
    svi = SVI(model, guide, "adam", elbo, per_datum=True)
    for step in range(steps):
        svi.step(digits[torch.arange(step * 64, step * 64 + 64) % len(digits)])
    return model, guide


@pytest.fixture(scope="module")
def digits():
    from pathscore.data import load_dataset
    from pathscore.data.epochs import binarize

    return binarize(load_dataset("digits").x, "static")


@pytest.mark.parametrize("steps", [0, 100])
def test_variance_falls_from_score_to_baseline_to_rloo_to_disarm(digits, steps):
    """Two evaluations each, N = 3 000 draws at 8 digits: every ratio's 99 % interval lies above 1."""
    model, guide = trained_pair(digits, "bernoulli", steps)
    two = measure(model, guide, digits[:8], estimators=["score", "score-avg", "rloo"], particles=2, replicates=3000)
    one = measure(model, guide, digits[:8], estimators=["rloo", "disarm"], replicates=3000, seed=1)
    rows = [*two.rows, one["disarm"]]
    assert all(row.evaluations == 2 for row in rows)
    for worse, better in pairwise(rows):
        low, high = variance_ratio(worse, better)
        assert 1 < low < high, (worse.name, better.name, low)
    low, high = variance_ratio(two["rloo"], one["rloo"])  # the same estimator twice: no difference is found
    assert low < 1 < high


@pytest.mark.parametrize("steps", [200, pytest.param(1500, marks=pytest.mark.proof)])
def test_the_score_varies_a_hundred_times_more_than_the_path(digits, steps):
    """N = 2 000 draws at 8 digits: the 99 % interval of the ratio of variances lies above 100."""
    model, guide = trained_pair(digits, "normal", steps)
    found = measure(model, guide, digits[:8], estimators=["score", "pathwise"], replicates=2000)
    low, _ = variance_ratio(found["score"], found["pathwise"])
    assert low > 100
