"""Pyro's objectives: right where the table calls them legal, wrong where it refuses them.

Replicates ride on the data plate: every row is one more independent draw of the gradient at the same parameters, so
one backward pass gives N of them. Statistical tests: N = 40 000, fixed seeds, pass at |z| ≤ 4 over all coordinates,
6e-5 false alarms a coordinate; the detectable bias is printed by the helper and below 0.05 nats here. Planted faults
(twice the gradient, a dropped score term) are caught by the same helper.
"""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO, ReweightedWakeSleep, Trace_ELBO, TraceMeanField_ELBO, TraceTailAdaptive_ELBO

from guides import AmortizedGuide, FactorisedGuide
from models import LATENTS, VAE
from models.latents import latent_layers
from pathscore.elbos import ELBOS, KLWeight, kl_weighted, legal, make_elbo, refusal
from pathscore.elbos.site import SiteELBO
from pathscore.elbos.tail_adaptive import tail_weights
from pathscore.elbos.weighted import WEIGHTED
from pathscore.errors import UsageError
from pathscore.svi import SVI

N = 40_000
LOGITS = torch.tensor([0.4, -0.8], dtype=torch.float64)
PRIOR = torch.tensor([-0.3, 0.6], dtype=torch.float64)
WEIGHTS = torch.tensor([1.5, -0.7], dtype=torch.float64)
X = 0.9


def worst_z(samples: torch.Tensor, exact: torch.Tensor) -> float:
    """Largest |z| of the mean of samples (N, D) against exact (D,)."""
    return ((samples.mean(0) - exact).abs() / (samples.std(0) / math.sqrt(len(samples)))).max().item()


def bernoulli_log_joint(z):
    prior = dist.Bernoulli(logits=PRIOR).log_prob(z).sum(-1)
    return prior, dist.Normal((z * WEIGHTS).sum(-1), 1.0).log_prob(torch.tensor(X, dtype=torch.float64))


def bernoulli_exact(kl: float = 1.0) -> tuple[float, torch.Tensor]:
    """ELBO (with the KL term weighted) and its gradient by the guide's logits, over the four states."""
    logits = LOGITS.clone().requires_grad_()
    z = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64)
    log_q = dist.Bernoulli(logits=logits).log_prob(z).sum(-1)
    prior, likelihood = bernoulli_log_joint(z)
    elbo = (log_q.exp() * (likelihood + kl * (prior - log_q))).sum()
    return elbo.item(), torch.autograd.grad(elbo, logits)[0]


def bernoulli_programs(rows: int):
    leaf = LOGITS.expand(rows, 2).clone()

    def guide(x):
        logits = pyro.param("logits", leaf)
        with pyro.plate("data", rows):
            pyro.sample("z", LATENTS["bernoulli"](2)(logits))

    def model(x):
        with pyro.plate("data", rows):
            z = pyro.sample("z", LATENTS["bernoulli"](2)(PRIOR))
            pyro.sample("x", dist.Normal((z * WEIGHTS).sum(-1), 1.0), obs=x)

    return model, guide, torch.full((rows,), X, dtype=torch.float64)


def normal_programs(rows: int):
    """z ~ N(0, 1), x | z ~ N(z, 1), q = N(m, s): ELBO = −½ (m² + s²) − ½ ((x − m)² + s²) + log s + constants."""

    def guide(x):
        loc = pyro.param("loc", torch.full((rows,), 0.2, dtype=torch.float64))
        scale = pyro.param("log_scale", torch.full((rows,), -0.5, dtype=torch.float64)).exp()
        with pyro.plate("data", rows):
            pyro.sample("z", dist.Normal(loc, scale))

    def model(x):
        with pyro.plate("data", rows):
            z = pyro.sample("z", dist.Normal(torch.zeros(()).double(), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    return model, guide, torch.full((rows,), X, dtype=torch.float64)


def normal_exact() -> torch.Tensor:
    m, s2 = 0.2, math.exp(-1.0)
    return torch.tensor([-m + (X - m), 1 - 2 * s2], dtype=torch.float64)


def gradients(elbo, programs, names, wrap=lambda fn: fn) -> torch.Tensor:
    """Gradient of the ELBO (not of the loss) per row, (N, coordinates)."""
    model, guide, x = programs
    svi = SVI(wrap(model), wrap(guide), "sgd", elbo)
    with svi.scope():
        elbo.loss_and_grads(svi.model, svi.guide, x)
    svi.recorder.forget()
    return -torch.cat([svi.parameters()[name].grad.reshape(len(x), -1) for name in names], -1)


class TestAgainstExact:
    @pytest.mark.parametrize("particles", [1, 3])
    @pytest.mark.parametrize("name", ["trace", "tracegraph"])
    def test_bernoulli(self, name, particles):
        torch.manual_seed(1)
        rows = gradients(make_elbo(name, num_particles=particles), bernoulli_programs(N), ["logits"])
        exact = bernoulli_exact()[1]
        assert worst_z(rows, exact) <= 4
        assert worst_z(2 * rows, exact) > 4 and worst_z(rows.roll(1, dims=1), exact) > 4
        assert 4 * (rows.std(0) / math.sqrt(N)).max() < 0.05

    @pytest.mark.parametrize("particles", [1, 3])
    def test_enum_is_exact(self, particles):
        elbo = make_elbo("enum", num_particles=particles)
        rows = gradients(elbo, bernoulli_programs(3), ["logits"])
        value, exact = bernoulli_exact()
        assert (rows - exact).abs().max() < 1e-10
        model, guide, x = bernoulli_programs(3)
        assert elbo.loss(model, guide, x) == pytest.approx(-3 * value, rel=1e-10)
        pyro.clear_param_store()

    @pytest.mark.parametrize("particles", [1, 3])
    @pytest.mark.parametrize("name", ["trace", "tracegraph", "meanfield"])
    def test_normal(self, name, particles):
        torch.manual_seed(12)
        rows = gradients(make_elbo(name, num_particles=particles), normal_programs(N), ["loc", "log_scale"])
        assert worst_z(rows, normal_exact()) <= 4
        assert worst_z(1.1 * rows, normal_exact()) > 4

    @pytest.mark.parametrize("name", ["trace", "tracegraph", "enum"])
    def test_kl_weight_bernoulli(self, name):
        """E_q[log p(x|z) + β (log p(z) − log q(z))]; the planted fault weighs the model alone."""
        torch.manual_seed(3)
        weight = KLWeight(0.3)
        exact = bernoulli_exact(0.3)[1]
        count = 3 if name == "enum" else N
        rows = gradients(make_elbo(name), bernoulli_programs(count), ["logits"], lambda fn: kl_weighted(fn, weight))
        assert ((rows - exact).abs().max() < 1e-10) if name == "enum" else worst_z(rows, exact) <= 4
        model, guide, x = bernoulli_programs(count)
        faulty = gradients(make_elbo(name), (kl_weighted(model, weight), guide, x), ["logits"])
        assert ((faulty - exact).abs().max() > 1e-2) if name == "enum" else worst_z(faulty, exact) > 4

    @pytest.mark.parametrize("name", ["trace", "meanfield"])
    def test_kl_weight_normal(self, name):
        torch.manual_seed(4)
        rows = gradients(make_elbo(name), normal_programs(N), ["loc", "log_scale"], lambda fn: kl_weighted(fn, 0.3))
        m, s2 = 0.2, math.exp(-1.0)
        exact = torch.tensor([X - m - 0.3 * m, 0.3 * (1 - s2) - s2], dtype=torch.float64)
        assert worst_z(rows, exact) <= 4

    def test_kl_weight_values(self):
        weight = KLWeight(2.0, warmup_steps=4)
        assert [weight.at(step) for step in (0, 1, 3, 9)] == [0.5, 1.0, 2.0, 2.0]
        weight.advance(1)
        with weight.lifted():
            assert weight.value == 1.0
        assert weight.value == 1.0 and KLWeight(0.0).value == 0.0
        with pytest.raises(UsageError, match="--kl-weight must be a number of at least 0, got -1"):
            KLWeight(-1)


class TestImportanceWeighted:
    """The same draws through the formula: no statistics, equality to 1e-10."""

    def draws(self, elbo, programs, seed=5):
        model, guide, x = programs
        svi = SVI(model, guide, "sgd", elbo)
        svi.recorder.watching = True  # as during a step
        torch.manual_seed(seed)
        with svi.scope():
            svi.recorder.watching = True  # as within a step
            loss = elbo.loss_and_grads(model, guide, x)
        z = next(msg["value"] for msg in svi.recorder.sampled() if msg["name"] == "z").detach()
        return loss, z, {name: p.grad for name, p in svi.parameters().items()}

    def test_renyi_is_the_importance_weighted_bound_per_datum(self):
        K, rows = 5, 4
        loss, z, grads = self.draws(make_elbo("renyi", num_particles=K), normal_programs(rows))
        loc = torch.full((rows,), 0.2, dtype=torch.float64).requires_grad_()
        log_scale = torch.full((rows,), -0.5, dtype=torch.float64).requires_grad_()
        eps = (z - 0.2) / math.exp(-0.5)
        value = loc + log_scale.exp() * eps  # (K, B)
        log_p = dist.Normal(0.0, 1.0).log_prob(value) + dist.Normal(value, 1.0).log_prob(
            torch.tensor(X, dtype=torch.float64)
        )
        log_w = log_p - dist.Normal(loc, log_scale.exp()).log_prob(value)
        bound = (log_w.logsumexp(0) - math.log(K)).sum()
        bound.backward()
        assert loss == pytest.approx(-bound.item(), rel=1e-10)
        assert torch.allclose(grads["loc"], -loc.grad, rtol=1e-10, atol=1e-10)
        assert torch.allclose(grads["log_scale"], -log_scale.grad, rtol=1e-10, atol=1e-10)

    def test_rws_with_one_datum(self):
        """Wake θ: the importance-weighted bound; wake φ: −Σ w̄ ∇ log q, self-normalised weights."""
        K = 6
        losses, z, grads = self.draws(make_elbo("rws", num_particles=K), bernoulli_programs(1))
        logits = LOGITS.clone().requires_grad_()
        log_q = dist.Bernoulli(logits=logits).log_prob(z[:, 0]).sum(-1)
        prior, likelihood = bernoulli_log_joint(z[:, 0])
        log_w = (prior + likelihood - log_q).detach()
        assert losses[0] == pytest.approx(-(log_w.logsumexp(0) - math.log(K)).item(), rel=1e-10)
        (log_w.softmax(0) * log_q).sum().backward()
        assert torch.allclose(grads["logits"][0], -logits.grad, rtol=1e-10, atol=1e-10)

    def test_tail_adaptive(self):
        """Per data point: weights by rank, largest first; the gradient along the path alone; the loss −ELBO."""
        K, rows = 4, 3
        loss, z, grads = self.draws(make_elbo("tail-adaptive", num_particles=K), normal_programs(rows))
        loc = torch.full((rows,), 0.2, dtype=torch.float64).requires_grad_()
        value = loc + z - 0.2  # (K, B)
        log_p = dist.Normal(0.0, 1.0).log_prob(value) + dist.Normal(value, 1.0).log_prob(
            torch.tensor(X, dtype=torch.float64)
        )
        log_w = log_p - dist.Normal(loc.detach(), math.exp(-0.5)).log_prob(value)
        assert loss == pytest.approx(-log_w.mean(0).sum().item(), rel=1e-10)
        rank = (log_w[:, None] <= log_w).sum(1).double()  # how many are at least as large
        gamma = (1 / rank) / (1 / rank).sum(0)
        (gamma * log_w).sum().backward()
        assert torch.allclose(grads["loc"], -loc.grad, rtol=1e-10)

    def test_tail_weights(self):
        log_w = torch.tensor([[3.0, -1.0], [0.1, 5.0], [-2.0, 0.0], [0.2, 0.5]])
        weights = tail_weights(log_w)
        assert weights.sum(0) == pytest.approx([1.0, 1.0])
        assert (weights[:, 0] / weights[0, 0]).tolist() == pytest.approx([1, 1 / 3, 1 / 4, 1 / 2])
        pyros = 1 / (log_w[:, 0].argsort() + 1.0)  # the permutation in place of the ranks
        assert pyros.tolist() == pytest.approx([1 / 3, 1 / 2, 1 / 4, 1])

    def test_tail_adaptive_has_no_gradient_where_the_guide_is_the_posterior(self):
        def guide(x):
            loc, scale = (
                pyro.param("loc", torch.full((5,), X / 2, dtype=torch.float64)),
                pyro.param("scale", torch.full((5,), 0.5**0.5, dtype=torch.float64)),
            )
            with pyro.plate("data", 5):
                pyro.sample("z", dist.Normal(loc, scale))

        model, _, x = normal_programs(5)
        _, _, grads = self.draws(make_elbo("tail-adaptive", num_particles=6), (model, guide, x))
        assert grads["loc"].abs().max() < 1e-12 and grads["scale"].abs().max() < 1e-12
        with pytest.raises(UsageError, match=r"TraceTailAdaptive_ELBO is wrong, .*use make_elbo\('tail-adaptive'\)"):
            SVI(
                model,
                guide,
                "sgd",
                TraceTailAdaptive_ELBO(num_particles=6, vectorize_particles=True, max_plate_nesting=1),
            ).step(x)


class TestWhatIsRefusedIsWrong:
    """Each refusal by its measurement; should Pyro change, these tell that the refusal can go."""

    def test_renyi_gives_a_discrete_latent_no_gradient(self):
        elbo = RenyiELBO(alpha=0, num_particles=4, vectorize_particles=True, max_plate_nesting=1)
        rows = gradients(elbo, bernoulli_programs(10), ["logits"])
        assert (rows == 0).all() and bernoulli_exact()[1].abs().min() > 0.01

    def test_renyi_is_no_bound_under_subsampling(self):
        torch.manual_seed(0)
        x = torch.randn(100) + 0.5

        def guide(full):
            with pyro.plate("data", 100, subsample_size=full):
                pyro.sample("z", dist.Normal(0.0, 1.0))

        def model(full):
            with pyro.plate("data", 100, subsample_size=full) as index:
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

        elbo = RenyiELBO(alpha=0, num_particles=1000, vectorize_particles=True, max_plate_nesting=1)
        evidence = dist.Normal(0.0, math.sqrt(2.0)).log_prob(x).sum().item()
        assert -elbo.loss(model, guide, 100) == pytest.approx(evidence, abs=1.5)
        assert -elbo.loss(model, guide, 10) > evidence + 20

    def test_rws_weighs_a_batch_jointly(self):
        torch.manual_seed(0)
        per_datum = []
        for rows in (1, 4, 120):
            model, guide, x = bernoulli_programs(rows)
            elbo = ReweightedWakeSleep(num_particles=50, max_plate_nesting=1)
            svi = SVI(model, guide, "sgd", elbo)
            with svi.scope():
                per_datum.append(sum(elbo.loss(model, guide, x)[0].item() for _ in range(200)) / 200 / rows)
        assert per_datum[2] > per_datum[0] + 0.05, per_datum

    def test_meanfield_is_biased_when_layers_of_the_guide_depend_on_each_other(self):
        """The closed form against `trace`, both averaged over 400 batches of 50 equal data: biased, or not."""
        for kind, biased in ((AmortizedGuide, True), (FactorisedGuide, False)):
            torch.manual_seed(0)
            sizes = {"data_size": 6, "layers": (2, 2), "hidden": (5,)}
            model, guide = VAE(**sizes), kind(**sizes)
            with torch.no_grad():
                for p in [*model.parameters(), *guide.parameters()]:
                    p.mul_(3.0)
            x = (torch.rand(1, 6) < 0.5).float().expand(50, 6)
            values = {}
            for cls in (Trace_ELBO, TraceMeanField_ELBO):
                elbo = cls(max_plate_nesting=1)
                with pyro.validation_enabled(False), torch.no_grad():
                    values[cls] = torch.tensor([elbo.loss(model, guide, x) / 50 for _ in range(400)])
            a, b = values.values()
            z = ((a.mean() - b.mean()) / (a.var() / 400 + b.var() / 400).sqrt()).abs().item()
            assert (z > 4) == biased, (kind, z)
        pyro.clear_param_store()

    def test_meanfield_looks_at_the_program(self):
        sizes = {"data_size": 6, "layers": (2, 2), "hidden": (5,)}
        x = torch.ones(3, 6)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            SVI(VAE(**sizes), FactorisedGuide(**sizes), "adam", make_elbo("meanfield")).step(x)
        with pytest.raises(UsageError, match="the prior of site 'z1' depends on 'z2', which the guide draws from 'z1'"):
            SVI(VAE(**sizes), AmortizedGuide(**sizes), "adam", make_elbo("meanfield")).step(x)


class TestTable:
    @pytest.mark.parametrize("entry", ELBOS.values(), ids=list(ELBOS))
    def test_every_entry(self, entry):
        elbo = make_elbo(entry.name, num_particles=entry.min_particles, max_plate_nesting=2)
        assert isinstance(elbo, entry.kind) and entry.doc and entry.needs
        own_plate = entry.min_particles > 1 and not isinstance(elbo, SiteELBO)  # Pyro's particles are one more
        assert elbo.max_plate_nesting == 2 + own_plate
        if entry.min_particles > 1:
            with pytest.raises(UsageError, match=f"--elbo {entry.name}: it needs --particles of at least 2, got 1"):
                make_elbo(entry.name)

    def test_no_objective_moves_the_random_stream_beyond_its_draws(self):
        """Guessing `max_plate_nesting` would run the program once more: two first steps differ from two steps."""
        for name, entry in ELBOS.items():
            ends = []
            for fresh in (True, False):
                torch.manual_seed(0)
                sizes = {"data_size": 6, "layers": (2,), "hidden": (5,)}
                sizes["latent"] = "bernoulli" if entry.enumerable else "normal"
                model, guide, x = VAE(**sizes), AmortizedGuide(**sizes), torch.ones(1, 6)
                elbos = [make_elbo(name, num_particles=entry.min_particles) for _ in range(2)]
                torch.manual_seed(1)
                for elbo in elbos if fresh else elbos[:1] * 2:
                    elbo.loss_and_grads(model, guide, x)
                ends.append(torch.get_rng_state())
                pyro.clear_param_store()
            assert torch.equal(*ends), name

    def test_unknown_names_and_options(self):
        with pytest.raises(UsageError, match="unknown elbo 'tracegraf': did you mean 'tracegraph'"):
            make_elbo("tracegraf")
        with pytest.raises(UsageError, match="unknown option of renyi 'alhpa': did you mean 'alpha'"):
            make_elbo("renyi", alhpa=0.5)
        with pytest.raises(UsageError, match="unknown option of trace 'alpha'"):
            make_elbo("trace", alpha=0.5)
        with pytest.raises(UsageError, match="--elbo renyi takes no --estimator: choose from trace, tracegraph"):
            make_elbo("renyi", estimators="rloo")
        assert make_elbo("renyi", num_particles=2, alpha=0.5).alpha == 0.5

    @pytest.mark.parametrize("name", ["renyi", *(entry.name for entry in WEIGHTED)])
    def test_no_bound_over_particles_is_the_elbo_by_default(self, name):
        """With one particle L_K and Rényi's bound of any order are the ELBO."""
        assert ELBOS[name].particles > 1

    def test_estimators_make_a_site_elbo(self):
        for name, credit in (("trace", "plate"), ("tracegraph", "graph")):
            elbo = make_elbo(name, "score", num_particles=2)
            assert type(elbo).__name__ == "SiteELBO" and elbo.credit == credit and elbo.num_particles == 2

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (("renyi", "bernoulli", (16,)), "exactly 0 at alpha 0"),
            (("meanfield", "categorical", (16,)), "a discrete site has none"),
            (("enum", "normal", (16,)), "no discrete latent to sum out"),
            (("enum", "bernoulli", (13,)), "8192 joint states, more than 4096"),
            (("meanfield", "normal", (4, 4)), "use one layer or --guide factorised"),
        ],
    )
    def test_reasons(self, call, message):
        elbo, latent, sizes = call
        why = refusal(elbo, latent_layers(latent, sizes), batch_size=64, particles=4)
        assert message in why and "legal here: trace, tracegraph" in why and "\n" not in why

    def test_legal_lists(self):
        normal = latent_layers("normal", (16,))
        weighted = [entry.name for entry in WEIGHTED]
        pyros = ["trace", "tracegraph", "meanfield", "renyi", "tail-adaptive"]
        assert legal(normal, batch_size=64) == pyros + weighted
        assert legal(normal, batch_size=1, particles=2) == [n for n in ELBOS if n != "enum"]
        discrete = ["trace", "tracegraph", "enum", *(n for n in weighted if n != "dreg")]
        assert legal(latent_layers("bernoulli", (8,)), batch_size=64) == discrete
        assert "renyi" not in legal(normal, kl_weighted=True)
        assert "meanfield" in legal(latent_layers("normal", (4, 4)), guide="factorised")
