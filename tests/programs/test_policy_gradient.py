"""The policy as guide, the reward as factor: the score function is the policy gradient, and a group has its bias.

Exact values come twice: from the policy-gradient theorem by dynamic programming (`models.returns`), and from the sum
over all sequences of moves (`pathscore.exact`).
"""

from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from guides.groups import group_gradient, return_gradient
from guides.policy import BanditPolicy, GridPolicy
from models import returns
from models.bandit import REWARDS, Bandit
from models.gridworld import MAPS, GridWorld
from pathscore import SVI, exact
from pathscore.elbos.kl_weight import kl_weighted
from pathscore.elbos.site import SiteELBO
from pathscore.estimators import make_estimator
from pathscore.estimators.baselines import GroupMean, LeaveOneOut
from pathscore.programs.lookup import find

pytestmark = pytest.mark.usefixtures("float64")

SMALL = ("S.H", "..G")
"""A map whose goal is three moves away."""

RATES = torch.tensor([0.02, 0.1, 0.3, 0.5, 0.8, 0.95], dtype=torch.float64)
"""Success rates of the questions."""

N = 20_000
"""Replicates. |z| ≤ 4 at 24 coordinates: a false alarm in 0.2 % of seeds; a bias of 4 standard errors, 3 % of one
draw's standard deviation, is found."""


def walk(slip=0.0, horizon=4, cells=SMALL):
    """A world and a policy with some logits."""
    torch.manual_seed(3)
    world = GridWorld(cells, horizon, 0.9, slip, 0.5).double()
    policy = GridPolicy(world).double()
    with torch.no_grad():
        policy.logits.normal_()
    return world, policy


def theorem(world, policy):
    """Σ_t Σ_s P(s_t = s) Σ_a Q_t(s, a) ∇π(a | s) / temperature."""
    probs = policy.probs
    weight = returns.visits(world, probs)[..., None] * returns.action_values(world, probs)
    (found,) = torch.autograd.grad((weight.detach() * probs).sum() / world.temperature, [policy.logits])
    return found


@pytest.mark.parametrize(("slip", "horizon"), [(0.0, 4), (0.4, 3)])
def test_the_enumerated_gradient_is_the_policy_gradient_theorem(slip, horizon):
    world, policy = walk(slip, horizon)
    (found,) = exact.gradient(kl_weighted(world, 0.0), kl_weighted(policy, 0.0), params=[policy.logits])
    assert found.abs().max() > 1e-3 and (found - theorem(world, policy)).abs().max() < 1e-10


@pytest.mark.parametrize(("slip", "horizon"), [(0.0, 4), (0.4, 3)])
def test_the_entropy_bonus_is_the_entropy_of_the_bound(slip, horizon):
    """ELBO = E[return] / temperature + entropy of the moves − T log 4, in value and in gradient."""
    world, policy = walk(slip, horizon)
    probs = policy.probs
    entropy = (returns.visits(world, probs) * -(probs * probs.log()).sum(-1)).sum()
    by_hand = returns.expected_return(world, probs) / world.temperature + entropy
    by_hand = by_hand - horizon * torch.as_tensor(4.0).log()
    assert exact.elbo(world, policy).item() == pytest.approx(by_hand.item(), abs=1e-10)
    assert returns.elbo(world, probs).item() == pytest.approx(by_hand.item(), abs=1e-10)
    (found,), (known,) = (
        exact.gradient(world, policy, params=[policy.logits]),
        torch.autograd.grad(by_hand, [policy.logits]),
    )
    assert (found - known).abs().max() < 1e-10
    assert exact.log_evidence(world, policy).item() == pytest.approx(returns.log_evidence(world).item(), abs=1e-10)


def test_the_theorem_is_the_derivative_of_the_return_and_no_policy_beats_the_best():
    world, policy = walk(0.3, 9, MAPS["lake"])
    value = returns.expected_return(world, policy.probs)
    (known,) = torch.autograd.grad(value / world.temperature, [policy.logits])
    assert (theorem(world, policy) - known).abs().max() < 1e-12
    assert (returns.visits(world, policy.probs).sum(-1) - 1).abs().max() < 1e-12
    assert returns.best_return(world) > value
    straight = GridWorld(MAPS["lake"], 7)
    assert returns.best_return(straight).item() == pytest.approx(0.95**5)  # six moves, the reward with the sixth


class Replicated:
    """N copies of a walk in a plate, each with logits of its own: one backward pass gives N gradients."""

    def __init__(self, world, policy, copies=N):
        self.world, self.seen = world, None
        self.logits = policy.logits.detach().expand(copies, -1, -1).clone().requires_grad_()
        self.copy = torch.arange(copies)

    def model(self):
        with pyro.plate("copies", len(self.copy), dim=-1):
            self.seen = poutine.trace(self.world).get_trace()

    def guide(self):
        with pyro.plate("copies", len(self.copy), dim=-1):
            cell = self.world.begin()
            for t in range(self.world.horizon):
                move = pyro.sample(f"a{t}", dist.Categorical(logits=self.logits[self.copy, cell]))
                cell = self.world.follows[cell, self.world.blown(t, move)]

    def gradients(self, estimator, particles=1, credit="plate"):
        """(N, S, 4), the entropy with weight 0."""
        elbo = SiteELBO(estimator, num_particles=particles, credit=credit)
        model, guide = (kl_weighted(program, 0.0) for program in (self.model, self.guide))
        elbo.prepare(model, guide)
        torch.manual_seed(0)
        self.logits.grad = None
        elbo.loss_and_grads(model, guide)
        return -self.logits.grad


def largest_z(found, known):
    """The largest |mean − exact| in standard errors, over the coordinates that vary."""
    error = found.std(0) / len(found) ** 0.5
    return ((found.mean(0) - known).abs() / error)[error > 0].max().item()


@pytest.mark.parametrize("slip", [0.0, 0.4])
@pytest.mark.parametrize(
    ("estimator", "particles"),
    [("score", 1), ("score-avg", 1), ("rloo", 2), ("enum", 1), ("group-mean", 2), ("grpo", 2)],
)
def test_each_sampled_estimator_is_the_policy_gradient_or_is_labelled_biased(estimator, particles, slip):
    """The last two are the planted faults: they are labelled biased, and the same z finds it."""
    world, policy = walk(slip, 3)
    rule = {"a*": estimator, "*": "score"}
    found = Replicated(world, policy).gradients(rule, particles)
    z = largest_z(found, theorem(world, policy))
    assert (z > 4) if estimator in ("group-mean", "grpo") else (z <= 4), z


def test_a_lost_discount_is_found():
    """The planted fault: the gradient with every later reward discounted from its own state on, as is often written."""
    world, policy = walk(0.0, 3)
    with torch.no_grad():
        weight = returns.visits(world, policy.probs) / world.discount ** torch.arange(3)[:, None]
        weight = weight[..., None] * returns.action_values(world, policy.probs)
    (wrong,) = torch.autograd.grad((weight * policy.probs).sum() / world.temperature, [policy.logits])
    assert largest_z(Replicated(world, policy).gradients({"*": "rloo"}, 2), wrong) > 4


def reinforce(copies, to_go):
    """Σ_t G_t ∇log π(a_t | s_t) by hand from the recorded moves; G_t the rewards from t on, or all of them."""
    nodes, world, copy = copies.seen.nodes, copies.world, copies.copy
    rewards = torch.stack([nodes[f"r{t}"]["fn"].log_factor for t in range(world.horizon)])  # (T, N)
    total = torch.zeros_like(copies.logits)
    cell = world.begin().expand(len(copy))
    for t in range(world.horizon):
        move = nodes[f"a{t}"]["value"]
        score = -copies.logits.detach()[copy, cell].softmax(-1)
        score[copy, move] += 1
        total[copy, cell] += (rewards[t:] if to_go else rewards).sum(0)[:, None] * score
        cell = world.follows[cell, move]
    return total


@pytest.mark.parametrize(("credit", "to_go"), [("plate", False), ("graph", True)])
def test_credit_by_dependency_is_reward_to_go(credit, to_go):
    """Draw by draw: by plate every move is charged the whole return, by dependency the rewards that follow it."""
    copies = Replicated(*walk(cells=MAPS["bridge"]), copies=50)
    found = copies.gradients({"*": "score"}, credit=credit)
    assert (found - reinforce(copies, to_go)).abs().max() < 1e-12
    assert (found - reinforce(copies, not to_go)).abs().max() > 1e-3


def test_reward_to_go_has_less_variance():
    """A cost for each move taken at random: what was paid before is noise. Ratio of variances over ten parts of N."""
    world, policy = walk(horizon=5)
    world.pays = torch.where(world.pays == 0, -1.0, world.pays)
    copies = Replicated(world, policy)
    whole, to_go = (
        copies.gradients({"*": "score"}, credit=credit).flatten(1).chunk(10) for credit in ("plate", "graph")
    )
    ratio = torch.stack([a.var(0).sum() / b.var(0).sum() for a, b in zip(whole, to_go, strict=True)])
    assert ratio.mean() - 4.8 * ratio.std() / 10**0.5 > 1.2, ratio  # 99.9 % of Student's t with 9 degrees of freedom


def questions():
    """Six questions with two answers each; a policy that finds the right one at RATES."""
    bandit = Bandit(REWARDS["answer"](len(RATES), 2).double())
    policy = BanditPolicy(bandit).double()
    with torch.no_grad():
        policy.logits[:, 0] = RATES.logit()
    return bandit, policy


def shares(estimator, particles=8):
    """The enumerated mean of an estimator over the exact gradient, for each question."""
    bandit, policy = questions()
    found = group_gradient(bandit, policy, estimator, particles) / return_gradient(bandit, policy)
    assert (found[:, 0] - found[:, 1]).abs().max() < 1e-8  # both answers are scaled alike
    return found[:, 0]


@pytest.mark.parametrize("particles", [2, 5, 8])
def test_leave_one_out_is_exact_and_the_group_mean_takes_one_kth(particles):
    assert (shares("rloo", particles) - 1).abs().max() < 1e-10
    assert (shares("score", particles) - 1).abs().max() < 1e-10
    assert (shares("group-mean", particles) - (1 - 1 / particles)).abs().max() < 1e-10


def test_the_groups_deviation_makes_it_biased_and_weighs_rare_successes_most():
    found = shares("grpo(eps=1e-8)")
    assert found.tolist() == pytest.approx([2.41, 2.18, 1.84, 1.74, 1.97, 2.31], abs=0.005)
    k, n = 8, torch.arange(1, 8, dtype=torch.float64)  # Σ_n C(K, n) p^n q^(K−n) of the signal of n successes among K
    chances = dist.Binomial(k, RATES[:, None]).log_prob(n).exp()
    gained = (n * (k - n) / k) / (n * (k - n) / k / (k - 1)).sqrt() / k
    assert (found - (chances * gained).sum(-1) / (RATES * (1 - RATES))).abs().max() < 1e-6
    assert found[0] / found[3] == pytest.approx(1.39, abs=0.01)


def test_leaving_one_out_of_the_deviation_blows_up_on_a_single_success():
    """(1, 0, 0, 0): the other three do not differ, and the signal is 1 / ε."""
    found = SimpleNamespace(cost=torch.tensor([[1.0], [0.0], [0.0], [0.0]])[None])
    signal = make_estimator("grpo(eps=1e-6, leave_one_out=True)").signal(found)[:, 0]
    assert signal[0].item() == pytest.approx(1e6)
    assert signal[1].item() == pytest.approx(-(1 / 3) / (1 / 3**0.5 + 1e-6))
    assert make_estimator("grpo").signal(found)[0, 0].item() == pytest.approx(0.75 / (0.5 + 1e-4))


def test_a_group_estimator_that_is_wrongly_called_exact_is_caught(monkeypatch):
    """The planted fault: leave-one-out that leaves nothing out."""
    monkeypatch.setattr(LeaveOneOut, "forward", GroupMean.forward)
    with pytest.raises(AssertionError):
        test_leave_one_out_is_exact_and_the_group_mean_takes_one_kth(5)


def test_a_step_is_the_gradient_bandit_of_the_book():
    """H ← H + α R (1[a] − π), for every task at once (Sutton & Barto 2018, equation 2.12 without a baseline)."""
    torch.manual_seed(0)
    bandit = Bandit(REWARDS["testbed"](40, 5).double())
    policy = BanditPolicy(bandit).double()
    before = policy.probs.detach().clone()
    SVI(
        kl_weighted(bandit, 0.0),
        kl_weighted(policy, 0.0),
        lambda parameters: torch.optim.SGD(parameters, 0.1),
        SiteELBO("score"),
    ).step()
    moved = policy.logits.detach()
    action = moved.argmax(-1)
    chosen = torch.nn.functional.one_hot(action, 5)
    reward = bandit.values.gather(-1, action[:, None])
    assert (moved - 0.1 * reward * (chosen - before)).abs().max() < 1e-12


def test_the_exact_figures_of_the_entries_are_those_of_the_sum_over_all_choices():
    entry = find("bandit")
    options = entry.options(tasks=3, arms=4, temperature=0.7)
    bandit, policy = (part.double() for part in entry.make(None, options))
    with torch.no_grad():
        policy.logits.normal_()
    known = entry.reference(bandit, policy, (), options)
    assert exact.elbo(bandit, policy).item() == pytest.approx(known["elbo"], abs=1e-9)
    assert exact.log_evidence(bandit, policy).sum().item() == pytest.approx(known["log_evidence"], abs=1e-9)


def test_noise_in_the_rewards_leaves_the_gradient_alone():
    """The noise is drawn from the model's own law: it adds variance, and neither cost nor bias."""
    torch.manual_seed(0)
    bandit = Bandit(REWARDS["testbed"](2, 3).double(), noise=0.5, temperature=2.0)
    policy = BanditPolicy(bandit).double()
    with torch.no_grad():
        policy.logits.normal_()
    (found,) = exact.gradient(kl_weighted(bandit, 0.0), kl_weighted(policy, 0.0), params=[policy.logits])
    assert (found - return_gradient(bandit, policy)).abs().max() < 1e-10


def test_moves_stop_at_walls_slip_to_their_sides_and_end_at_goal_and_holes():
    world = GridWorld(("S.", "HG"), slip=0.4)
    left, down, right, up = range(4)
    assert world.follows.tolist() == [[0, 2, 1, 0], [0, 3, 1, 1], [2] * 4, [3] * 4]
    assert world.pays[0].tolist() == [0, -1, 0, 0] and world.pays[1].tolist() == [0, 1, 0, 0]
    assert world.pays[2:].abs().max() == 0  # the walk is over
    assert world.drift[left].tolist() == pytest.approx([0.6, 0.2, 0.0, 0.2])
    assert world.drift[:, right].tolist() == pytest.approx([0.0, 0.2, 0.6, 0.2]) and world.drift[up, down] == 0
