"""Evaluation against exact references.

Statistical tests evaluate one data point N times over (N copies in the plate are independent), so that the mean has a
standard error; |z| ≤ 5 has a false-alarm rate of 6e-7, and a bias of 10 standard errors is missed as rarely.
"""

from contextlib import contextmanager

import exact_cases
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from guides import AmortizedGuide
from models import VAE
from pathscore import evaluation, exact
from pathscore.errors import NumericsError, UsageError
from pathscore.evaluation import bounds, units, weights

COPIES = 4000


class Belief(nn.Module):
    """Two Bernoulli layers on three pixels under a subsampled plate: z1 (D = 2), z2 given z1 in the guide."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(2, 3))
        self.v = nn.Parameter(torch.randn(2))
        self.a = nn.Parameter(torch.randn(3, 2))

    def plate(self, x):
        return pyro.plate("data", 10 * len(x), subsample_size=len(x), dim=-1)

    def model(self, x):
        with self.plate(x):
            z2 = pyro.sample("z2", dist.Bernoulli(0.3))
            z1 = pyro.sample("z1", dist.Bernoulli(logits=z2[..., None] * self.v).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z1 @ self.w).to_event(1), obs=x)

    def guide(self, x):
        with self.plate(x):
            z1 = pyro.sample("z1", dist.Bernoulli(logits=x @ self.a).to_event(1))
            pyro.sample("z2", dist.Bernoulli(logits=z1 @ self.v))


def z_score(values, right):
    return abs(values.mean().item() - right) / bounds.standard_error(values)


def _discrepancies(pair, x):
    """z-scores of the sampled ELBO and five-sample bound against exact ones."""
    copies = x.expand(COPIES, -1)
    elbo = evaluation.elbo(pair.model, pair.guide, copies, samples=4).elbo
    bound = evaluation.importance_bound(pair.model, pair.guide, copies, num_particles=5)
    exact_elbo = exact.elbo(pair.model, pair.guide, x).item() / 10
    exact_bound = exact.importance_bound(pair.model, pair.guide, x, num_particles=5).item() / 10
    return z_score(elbo, exact_elbo), z_score(bound, exact_bound)


def test_elbo_and_bound_have_the_exact_mean_under_a_subsampled_plate(capsys):
    pair, x = Belief(), torch.tensor([[1.0, 0.0, 1.0]])
    z = _discrepancies(pair, x)
    with capsys.disabled():
        print(f"\nevaluation: N = {COPIES}, |z| of ELBO and bound = {z[0]:.2f}, {z[1]:.2f} (limit 5)")
    assert max(z) < 5


@pytest.mark.parametrize("fault", ["scaled", "bare prior only", "sum over particles"])
def test_planted_faults_are_caught(fault, monkeypatch):
    right = weights.draw

    def faulty(*args):
        w = right(*args)
        if fault == "scaled":  # weights formed after the plate's scale
            return weights.Weights(10 * w.log_prior, 10 * w.log_likelihood, 10 * w.log_q)
        if fault == "bare prior only":
            return weights.Weights(w.log_prior, w.log_likelihood, w.log_q.detach() * 0)
        return weights.Weights(w.log_prior, w.log_likelihood.roll(1, 1), w.log_q.roll(1, 0))

    monkeypatch.setattr(bounds, "draw", faulty)
    assert max(_discrepancies(Belief(), torch.tensor([[1.0, 0.0, 1.0]]))) > 5


def test_rate_and_distortion_are_the_two_parts():
    pair, x = Belief(), torch.tensor([[1.0, 1.0, 0.0]])
    found = evaluation.elbo(pair.model, pair.guide, x.expand(COPIES, -1))
    table = exact.tabulate(pair.model, pair.guide, x)
    q = sum(t.masked for t in table.log_q).exp()
    log_p = {t.name: t.masked for t in table.log_p}
    distortion = -(q * log_p["x"]).sum().item()
    rate = (q * (q.log() - log_p["z1"] - log_p["z2"])).sum().item()
    assert z_score(found.rate, rate) < 5
    assert z_score(found.distortion, distortion) < 5
    assert torch.allclose(found.elbo, -(found.rate + found.distortion))


def _one_bit(x):
    """A bit and its exact posterior as the guide: every weight is p(x)."""
    w = torch.tensor([1.5, -2.0, 0.5])

    def log_joint(bit, x):
        return dist.Bernoulli(0.3).log_prob(bit) + dist.Bernoulli(logits=bit * w).to_event(1).log_prob(x)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            bit = pyro.sample("z", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Bernoulli(logits=bit[..., None] * w).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Bernoulli(logits=log_joint(torch.ones(()), x) - log_joint(torch.zeros(()), x)))

    return model, guide, torch.logaddexp(log_joint(torch.ones(()), x), log_joint(torch.zeros(()), x)).double()


@pytest.mark.parametrize("rows", [1, 3, 7, 2**14])
@pytest.mark.parametrize("particles", [1, 2, 10])
def test_at_the_exact_posterior_the_bound_is_the_likelihood_however_the_work_is_cut(rows, particles, monkeypatch):
    monkeypatch.setattr(weights, "ROW_LIMIT", rows)
    x = torch.bernoulli(torch.full((11, 3), 0.5))
    model, guide, log_p = _one_bit(x)
    assert (evaluation.importance_bound(model, guide, x, num_particles=particles) - log_p).abs().max() < 1e-5
    assert (evaluation.elbo(model, guide, x, samples=particles).elbo - log_p).abs().max() < 1e-5
    assert (evaluation.exact_log_likelihood(model, guide, x) - log_p).abs().max() < 1e-5


def test_a_pass_stays_within_its_size_whatever_the_number_of_particles(monkeypatch):
    sizes, right = [], bounds.draw

    def noted(model, guide, data, particles, depth):
        sizes.append(len(data[0]) * particles * data[0][0].numel())
        return right(model, guide, data, particles, depth)

    monkeypatch.setattr(bounds, "draw", noted)
    x = torch.bernoulli(torch.full((40, 3), 0.5))
    model, guide, _ = _one_bit(x)
    evaluation.importance_bound(model, guide, x, num_particles=5000)
    assert sum(sizes) == 40 * 5000 * 3
    assert max(sizes) <= 3 * weights.ROW_LIMIT


class Units(nn.Module):
    """q(z1 | x) with means x, 0 and 0.1 x; z2 one-hot given z1, of two variables the second dead."""

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", dist.Normal(x * torch.tensor([1.0, 0.0, 0.05]), 1.0).to_event(1))
            logits = torch.stack([3 * z1[..., :1], torch.zeros_like(z1[..., :1])], -2) * torch.ones(4)  # (…, B, 2, 4)
            pyro.sample("z2", dist.OneHotCategorical(logits=logits * torch.arange(4)).to_event(1))
            pyro.sample("c", dist.Categorical(logits=logits[..., 0, :] * torch.arange(4)))

    model = guide


def test_active_units_are_counted_per_variable_and_the_noise_of_deep_layers_does_not_count():
    x = torch.randn(500, 1)
    found = evaluation.activity(Units().model, Units().guide, x, samples=8)
    right = x.var() * torch.tensor([1.0, 0.0, 0.0025])
    assert (found["z1"] - right).abs().max() < 1e-5  # no sampling: the mean of the first layer is exact
    assert found["z2"][0] > 0.05
    assert found["z2"][1] < 1e-6
    counts = evaluation.active_units(Units().model, Units().guide, x, samples=8)
    assert counts == {"z1": 1, "z2": 1, "c": 1}


def test_with_one_half_of_the_draws_dead_units_would_look_alive():
    class Noise:
        """z2 copies the noise of z1: its inner mean has variance 1/S and does not depend on x."""

        def guide(self, x):
            with pyro.plate("data", len(x), dim=-1):
                z1 = pyro.sample("z1", dist.Normal(torch.zeros(len(x)), 1.0))
                pyro.sample("z2", dist.Normal(z1, 1.0))

        model = guide

    x = torch.zeros(4000, 1)
    found = evaluation.activity(Noise().model, Noise().guide, x, samples=8)
    # Covariance of two halves of 4 draws: 0 ± (1/4)/√4000 = ± .004; the variance of either half is .25.
    assert abs(found["z2"]) < 0.02
    means = units._means(Noise().guide, (x,), ["z2"], 4, 1)
    assert means["z2"].var() > 0.2


@pytest.mark.parametrize("latent", ["normal", "bernoulli", "categorical", "lognormal"])
def test_evaluate_makes_the_summary_and_leaves_everything_else_alone(latent):
    kind = {"data_size": 6, "latent": latent, "layers": (3, 2), "hidden": (4,), "classes": 3}
    model, guide = VAE(**kind), AmortizedGuide(**kind)
    x = torch.bernoulli(torch.full((30, 6), 0.5))
    stream = torch.get_rng_state()
    found = evaluation.evaluate(model, guide, x, importance_samples=50, seed=7)
    assert torch.equal(stream, torch.get_rng_state())
    assert all(p.grad is None for p in [*model.parameters(), *guide.parameters()])
    assert found == evaluation.evaluate(model, guide, x, importance_samples=50, seed=7)
    assert found["test_elbo"] == pytest.approx(-found["rate"] - found["distortion"])
    assert found["test_elbo"] < found["test_log_likelihood"] < 0
    assert found["test_log_likelihood_samples"] == 50
    assert 0 < found["test_elbo_se"] < 3
    assert set(found["active_units_by_site"]) == {"z1", "z2"}
    assert found["active_units"] == sum(found["active_units_by_site"].values()) <= 5


def test_exact_likelihood_of_a_two_layer_model_is_at_or_above_every_bound():
    kind = {"data_size": 6, "latent": "bernoulli", "layers": (3, 2), "hidden": (4,)}
    model, guide = VAE(**kind), AmortizedGuide(**kind)
    x = torch.bernoulli(torch.full((200, 6), 0.5))
    right = evaluation.exact_log_likelihood(model, guide, x).mean()
    bound = evaluation.importance_bound(model, guide, x, num_particles=2000)
    assert abs(bound.mean() - right) < 0.005
    with pytest.raises(UsageError, match="site 'z1' has"):
        big = {**kind, "layers": (20,)}
        evaluation.exact_log_likelihood(VAE(**big), AmortizedGuide(**big), x)


def test_programs_without_a_plate_over_the_data_are_refused_by_name():
    case = exact_cases.matrix_event_without_plate()
    with pytest.raises(UsageError, match=r"site '.' is not in a plate over the 2 data points"):
        evaluation.elbo(case.model, case.guide, *case.args)
    with pytest.raises(UsageError, match="at least one data point"):
        evaluation.elbo(case.model, case.guide, torch.zeros(0, 2))


class TestChecks:
    """Pyro's checks run once for every data point, not in every pass."""

    x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])

    def test_values_are_those_of_passes_with_checks(self, monkeypatch):
        pair = Belief()
        quick = evaluation.importance_bound(pair.model, pair.guide, self.x, num_particles=20)

        @contextmanager
        def always(model, guide, data):
            yield weights.plate_depth(model, guide, data)

        monkeypatch.setattr(bounds, "checked", always)
        assert torch.equal(quick, evaluation.importance_bound(pair.model, pair.guide, self.x, num_particles=20))

    def test_a_value_outside_the_support_is_refused_wherever_it_is(self):
        pair, x = Belief(), self.x.clone()
        x[2, 1] = 0.5
        with pytest.raises(ValueError, match="support"):
            evaluation.importance_bound(pair.model, pair.guide, x, num_particles=20)

    def test_validation_is_as_it_was(self):
        pair = Belief()
        for on in (True, False):
            with pyro.validation_enabled(on):
                evaluation.importance_bound(pair.model, pair.guide, self.x, num_particles=20)
                assert pyro.infer.util.is_validation_enabled() == on

    def test_nan_is_refused_by_number(self):
        """Weights that are NaN for one of three data points, after the checks."""
        model = VAE(3, layers=(2,), hidden=(4,))
        guide = AmortizedGuide(3, layers=(2,), hidden=(4,))
        x = self.x.clone()
        x[1] = float("nan")
        with (
            pyro.validation_enabled(False),
            pytest.raises(NumericsError, match="of 1 data points are NaN, the first is number 1"),
        ):
            evaluation.importance_bound(model, guide, x, num_particles=20)
