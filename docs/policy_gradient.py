"""The tables of docs/reproductions.md on policy gradients: `python docs/policy_gradient.py testbed|groups|walk`.

testbed: the gradient bandit of Sutton & Barto (2018, section 2.8), ours beside their algorithm in NumPy.
groups: what group baselines do to the gradient, by the sum over all groups.
walk: variance at the start on a grid, and the return after training, over seeds.
"""

import math
import sys

import numpy as np
import torch

from guides.groups import group_gradient, return_gradient
from guides.policy import BanditPolicy, GridPolicy
from models import returns
from models.bandit import REWARDS, Bandit
from models.gridworld import MAPS, GridWorld
from pathscore import SVI, make_elbo, measure
from pathscore.elbos.kl_weight import kl_weighted
from pathscore.gradients.records import Row
from pathscore.svi.optimiser import OptimizerSpec

TASKS, ARMS, PULLS = 2000, 10, 1000
STEPS, SEEDS = 60, 10
STUDENT = 2.262
"""97.5 % point of Student's t with nine degrees of freedom: 95 % intervals over ten seeds."""


def testbed() -> None:
    """Probability of the best arm after 1 000 steps on 2 000 bandits, with 95 % intervals over the bandits."""
    print("| probability of the best arm after 1 000 steps | α = 0.1 | α = 0.4 |\n|---|---|---|")
    for name, particles in (("score", 1), ("score-avg", 1), ("rloo", 2), ("action=enum,noise=pathwise", 1)):
        cells = (with_interval(trained(name, particles, rate)) for rate in (0.1, 0.4))
        print(f"| `{name}`, K = {particles} | {' | '.join(cells)} |", flush=True)
    for words, baseline in (("the book's algorithm without a baseline", False), ("the same with it", True)):
        cells = (with_interval(by_the_book(baseline, rate)) for rate in (0.1, 0.4))
        print(f"| {words} (NumPy) | {' | '.join(cells)} |", flush=True)


def trained(estimator: str, particles: int, rate: float) -> np.ndarray:
    """Probability of the best arm in each task after training, the entropy with weight 0, (N,)."""
    torch.manual_seed(0)
    bandit = Bandit(REWARDS["testbed"](TASKS, ARMS), noise=1.0)
    policy = BanditPolicy(bandit)
    spec = f"*={estimator}" if "=" not in estimator else estimator
    elbo = make_elbo("trace", spec, particles)
    svi = SVI(kl_weighted(bandit, 0.0), kl_weighted(policy, 0.0), OptimizerSpec("sgd", lr=rate), elbo, publish=False)
    for _ in range(PULLS):
        svi.step()
    best = bandit.values.argmax(-1, keepdim=True)
    return policy.probs.detach().gather(-1, best)[:, 0].numpy()


def by_the_book(baseline: bool, rate: float) -> np.ndarray:
    """Equation 2.12 for all tasks at once: H ← H + α (R − R̄)(1[a] − π), R̄ the mean of the task's rewards so far."""
    draw, values = np.random.default_rng(0), REWARDS["testbed"](TASKS, ARMS).numpy()
    row, mean, h = np.arange(TASKS), np.zeros(TASKS), np.zeros((TASKS, ARMS))
    for t in range(PULLS):
        pi = np.exp(h - h.max(1, keepdims=True))
        pi /= pi.sum(1, keepdims=True)
        action = (pi.cumsum(1) > draw.random((TASKS, 1))).argmax(1)
        reward = values[row, action] + draw.normal(size=TASKS)
        mean += (reward - mean) / (t + 1) if baseline else 0.0
        h += rate * (reward - mean)[:, None] * ((np.arange(ARMS) == action[:, None]) - pi)
    pi = np.exp(h - h.max(1, keepdims=True))
    return (pi / pi.sum(1, keepdims=True))[row, values.argmax(1)]


def with_interval(values: np.ndarray) -> str:
    """Mean ± half a 95 % interval."""
    return f"{values.mean():.3f} ± {1.96 * values.std(ddof=1) / math.sqrt(len(values)):.3f}"


def groups() -> None:
    """The enumerated mean of each estimator over the exact gradient, by success rate."""
    rates = torch.tensor([0.02, 0.1, 0.3, 0.5, 0.8, 0.95], dtype=torch.float64)
    bandit = Bandit(REWARDS["answer"](len(rates), 2).double())
    policy = BanditPolicy(bandit).double()
    with torch.no_grad():
        policy.logits[:, 0] = rates.logit()
    exact = return_gradient(bandit, policy)
    print(f"| estimate / gradient, success rate | {' | '.join(f'{p:g}' for p in rates.tolist())} |")
    print("|---" * 7 + "|")
    for name, particles in (("rloo", 8), ("group-mean", 8), ("grpo", 8), ("grpo", 64)):
        share = (group_gradient(bandit, policy, name, particles) / exact)[:, 0]
        print(f"| `{name}`, K = {particles} | {' | '.join(f'{s:.3f}' for s in share.tolist())} |", flush=True)


def walk() -> None:
    """Four episodes a step: variance at the start on the lake, and the return after training in the room."""
    print(f"| estimator, 4 episodes | variance on the lake, ± 2 s.e. | return in the room after {STEPS} steps |")
    print("|---|---|---|")
    cases = [("score", "trace"), ("score", "tracegraph"), ("score-avg", "trace"), ("rloo", "trace")]
    for name, elbo in [*cases, ("rloo", "tracegraph"), ("enum", "trace"), ("grpo", "trace")]:
        values = [walked(name, elbo, seed) for seed in range(SEEDS)]
        half = STUDENT * np.std(values, ddof=1) / math.sqrt(SEEDS)
        row = variance(name, elbo)
        cells = f"{row.total_variance:.3g} ± {2 * row.variance_se:.2g} | {np.mean(values):.3f} ± {half:.3f}"
        print(f"| `{name}`{'' if row.unbiased else ' (biased)'}, `--elbo {elbo}` | {cells} |", flush=True)


def variance(name: str, elbo: str) -> Row:
    """The lab's row for the uniform policy on the lake, by the logits of the moves."""
    world = GridWorld(MAPS["lake"], 7, 0.95, temperature=0.05)
    found = measure(world, GridPolicy(world), estimators=[name], particles=4, replicates=4000, elbo=elbo)
    return found.rows[0]


def walked(name: str, elbo: str, seed: int) -> float:
    """The exact return after training in the room."""
    torch.manual_seed(seed)
    world = GridWorld(MAPS["room"], 6, 0.95, temperature=0.1)
    policy = GridPolicy(world)
    svi = SVI(world, policy, OptimizerSpec("adam", lr=0.1), make_elbo(elbo, name, 4), publish=False)
    for _ in range(STEPS):
        svi.step()
    return returns.expected_return(world, policy.probs.detach()).item()


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"testbed": testbed, "groups": groups, "walk": walk}[sys.argv[1]]()
