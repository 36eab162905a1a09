"""Draws without replacement: the published toy, equal and impossible classes, importance weights, refusals.

The proof on small programs is test_proof.py (k = 2 of three classes; k = 4 there is the exact sum). Here N is given for
each test; |z| ≤ 4.5 has a false-alarm rate of 7e-6 for each coordinate.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from compiled_cases import interpreted

from pathscore import UsageError, exact, make_elbo, measure
from pathscore.compiling.compiled_elbo import CompiledELBO
from pathscore.elbos.site import SiteELBO
from pathscore.estimators import make_estimator
from pathscore.gradients.results import variance_ratio
from pathscore.gradients.toy import make_toy

pytestmark = pytest.mark.usefixtures("float64")

TARGET = torch.tensor([0.6, 0.51, 0.48], dtype=torch.float64)
STATES = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 3)  # (8, 3)
COSTS = (STATES - TARGET).square().sum(-1)
N = 40_000


def program(logits, costs, leaf):
    """N copies of E[f(z)], z ~ Categorical(logits(leaf)): the model's own log p is −log q, so f is all of the cost."""

    def guide():
        with pyro.plate("replicates", len(leaf)):
            pyro.sample("z", dist.Categorical(logits=logits(leaf)))

    def model():
        with pyro.plate("replicates", len(leaf)):
            z = pyro.sample("z", dist.Categorical(logits=logits(leaf.detach())))
            pyro.factor("f", costs[z])

    return model, guide


def gradients(logits, costs, start, spec, particles=1, count=N):
    """N gradients by the leaf (N, P), and the exact one (P,)."""
    torch.manual_seed(0)
    leaf = start.expand(count, *start.shape).clone().requires_grad_()
    elbo = SiteELBO(spec, num_particles=particles)
    elbo.loss_and_grads(*program(logits, costs, leaf))
    one = start.clone()[None].requires_grad_()
    mean = (torch.softmax(logits(one), -1) * costs).nan_to_num().sum()
    return -leaf.grad.reshape(count, -1), torch.autograd.grad(mean, one)[0].flatten()


def largest_z(drawn, target):
    return ((drawn.mean(0) - target) / (drawn.std(0) / len(drawn) ** 0.5 + 1e-12)).abs().max().item()


def bits(eta):
    """Three bits of one logit as one variable of eight classes."""
    return STATES.sum(-1) * eta[..., None]


class TestThePublishedToy:
    """Kool, van Hoof & Welling 2020, figure 2: three bits, p₀ = (.6, .51, .48), as eight classes; N = 40 000.

    The standard error of a variance is 0.7 % of it here.
    """

    @pytest.mark.parametrize(
        ("spec", "particles", "low", "high"), [("unordered(k=4)", 1, 1.08e-3, 1.18e-3), ("rloo", 4, 1.9e-3, 2.08e-3)]
    )
    def test_variance_at_equal_logits(self, spec, particles, low, high):
        """Read off the authors' figure: 1.1e-3 with four different values, 1.9e-3 with four draws."""
        drawn, target = gradients(bits, COSTS, torch.zeros(()), spec, particles)
        print(f"{spec}: variance {drawn.var():.3e}")
        assert largest_z(drawn, target) < 4.5
        assert low < drawn.var() < high

    def test_a_concentrated_law_gains_most(self):
        """At η = −4 one state has 95 %: 100 times less variance than four draws."""
        start = torch.tensor(-4.0)
        sets, target = gradients(bits, COSTS, start, "unordered(k=4)")
        draws, _ = gradients(bits, COSTS, start, "rloo", 4)
        assert largest_z(sets, target) < 4.5
        assert sets.var() < draws.var() / 100


@pytest.mark.parametrize("name", ["unordered", "sum-and-sample"])
@pytest.mark.parametrize("k", [2, 3])
class TestCornerCases:
    def test_equal_probabilities(self, name, k):
        """Ties: the class that was sampled must be known, not guessed from its probability."""
        drawn, target = gradients(lambda raw: raw, COSTS, torch.zeros(8), f"{name}(k={k})")
        assert largest_z(drawn, target) < 4.5

    def test_classes_of_probability_zero(self, name, k):
        """Three of five classes are impossible: no nan, and no bias."""
        dead = torch.tensor([0.0, -torch.inf, 0.0, -torch.inf, -torch.inf])
        start = torch.tensor([0.3, 0.0, -0.4, 0.0, 0.0])
        drawn, target = gradients(lambda raw: raw + dead, COSTS[:5], start, f"{name}(k={k})")
        assert drawn.isfinite().all()
        assert largest_z(drawn[:, [0, 2]], target[[0, 2]]) < 4.5

    def test_importance_weights(self, name, k):
        """L_2 of one variable, N copies in a plate, against its exact sum over pairs."""
        raw, table = torch.tensor([0.4, -0.3, 0.2, 0.0, -0.6]), torch.tensor([0.3, -1.0, 0.8, 0.1, -0.5])

        def copies(leaf):
            def guide():
                with pyro.plate("copies", len(leaf)):
                    pyro.sample("z", dist.Categorical(logits=leaf))

            def model():
                with pyro.plate("copies", len(leaf)):
                    z = pyro.sample("z", dist.Categorical(logits=torch.zeros(5)))
                    pyro.sample("x", dist.Normal(table[z], 0.5), obs=torch.full((len(leaf),), 0.2))

            return model, guide, leaf.requires_grad_()

        model, guide, leaf = copies(raw.expand(N, 5).clone())
        torch.manual_seed(0)
        make_elbo("iwae", f"{name}(k={k})", 2).loss_and_grads(model, guide)
        one = copies(raw[None].clone())
        (target,) = exact.gradient(*one[:2], params=[one[2]], of=exact.importance_bound, num_particles=2)
        assert largest_z(-leaf.grad, target[0]) < 4.5


def test_all_classes_are_the_exact_sum():
    """k = number of classes: no variance, for both."""
    for name in ("unordered", "sum-and-sample"):
        drawn, target = gradients(lambda raw: raw, COSTS, torch.linspace(-1, 1, 8), f"{name}(k=8)", count=50)
        assert (drawn - target).abs().max() < 1e-12


def test_beats_disarm_on_a_hundred_classes():
    """At equal evaluations, 2 and 4: less variance, by the 99 % interval."""
    toy = make_toy("categorical", 1, classes=100)
    for particles, k in ((1, 2), (2, 4)):
        found = measure(toy.model, toy.guide, estimators=["disarm"], particles=particles, replicates=5000)
        sets = measure(toy.model, toy.guide, estimators=[f"unordered(k={k})"], replicates=5000)
        disarm, unordered = found["disarm"], sets[f"unordered(k={k})"]
        assert disarm.evaluations == unordered.evaluations
        assert variance_ratio(disarm, unordered)[0] > 1.2


@pytest.mark.parametrize("spec", ["unordered(k=3)", "sum-and-sample(k=3)"])
def test_a_captured_step_has_the_same_gradient(spec):
    """The captured graph, operation by operation, from the same random stream as the eager step."""
    leaf = torch.linspace(-1, 1, 8).expand(100, 8).clone().requires_grad_()
    pair = program(lambda raw: raw, COSTS, leaf)
    found = []
    for elbo in (SiteELBO(spec), CompiledELBO(SiteELBO(spec), builder=interpreted)):
        elbo.loss_and_grads(*pair)  # the first evaluation of a program is eager
        leaf.grad = None
        torch.manual_seed(0)
        elbo.loss_and_grads(*pair)
        found.append(leaf.grad.clone())
    assert elbo.built, elbo.refused
    assert torch.allclose(*found)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: make_estimator("unordered(k=9)"), "k of unordered is the number of values evaluated, 2 to 8, got 9"),
        (
            lambda: SiteELBO("sum-and-sample").prepare(*several()),
            "site 'z': sum-and-sample draws different values of one variable, .* use disarm",
        ),
    ],
)
def test_refusals_name_the_remedy(make, words):
    with pytest.raises(UsageError, match=words):
        make()


def several():
    def program():
        pyro.sample("z", dist.OneHotCategorical(logits=torch.zeros(2, 3)).to_event(1))

    return program, program
