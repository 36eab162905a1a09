"""Exact means of estimators that compare the K draws of a group: `group_gradient(bandit, policy, estimator, K)`.

A group is what language-model training calls the K answers to one question: here the K particles of a `Bandit`. With A
arms there are few groups up to their order, so the mean over all of them is a sum.
"""

from itertools import combinations_with_replacement
from math import factorial, prod

import torch
from torch import Tensor

from guides.policy import BanditPolicy
from models.bandit import Bandit
from pathscore.elbos.kl_weight import kl_weighted
from pathscore.elbos.site import SiteELBO
from pathscore.svi import SVI


def group_gradient(bandit: Bandit, policy: BanditPolicy, estimator: str, particles: int) -> Tensor:
    """The exact mean of an estimate of ∇_logits of the expected return / temperature, (N, A).

    It runs the objective once for each group of `particles` actions, the same in all tasks, and adds the gradients up
    with the groups' probabilities in each task. The entropy has weight 0. Use a bandit without noise.
    """
    elbo = SiteELBO({"action": estimator}, num_particles=particles)
    svi = SVI(kl_weighted(bandit, 0.0), kl_weighted(policy, 0.0), loss=elbo, publish=False)
    with svi.scope():
        rule = elbo.prepare(svi.model, svi.guide).sites["action"].estimator
    log_probs = policy.logits.detach().log_softmax(-1)
    total = torch.zeros_like(log_probs)
    for group in combinations_with_replacement(range(log_probs.shape[1]), particles):
        actions = torch.tensor(group, device=log_probs.device)[:, None].expand(particles, bandit.tasks)
        rule.sample = lambda fn, actions=actions: (actions, None)
        weight = orders(group) * log_probs[:, list(group)].sum(-1).exp()  # (N,)
        total += weight[:, None] * gradient(svi, policy.logits)
    return total


def orders(group: tuple[int, ...]) -> int:
    """The number of orders of a group: K! / Π (count of each action)!."""
    return factorial(len(group)) // prod(factorial(group.count(action)) for action in set(group))


def gradient(svi: SVI, logits: torch.nn.Parameter) -> Tensor:
    """The gradient of the bound, not of the loss, at the present parameters."""
    logits.grad = None
    with svi.scope():
        svi.elbo.loss_and_grads(svi.model, svi.guide)  # type: ignore[attr-defined]  # of every objective here
    assert logits.grad is not None
    return -logits.grad


def return_gradient(bandit: Bandit, policy: BanditPolicy) -> Tensor:
    """The exact ∇_logits of the expected return / temperature, π(a) (value(a) − expected return), (N, A)."""
    probs = policy.probs.detach()
    return probs * (bandit.values - bandit.expected_return(probs)[:, None]) / bandit.temperature
