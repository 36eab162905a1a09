"""Exact returns of policies on a `GridWorld`, by dynamic programming. S cells, four moves, T steps.

    expected_return(world, probs) -> ()          J = E_π[Σ_t γ^t r_t], differentiable in probs (S, 4)
    action_values(world, probs)   -> (T, S, 4)   Q_t(s, a), the return from step t on
    visits(world, probs)          -> (T, S)      P(s_t = s)
    best_return(world)            -> ()          the largest J of any policy
    log_evidence(world)           -> ()          log E_uniform[exp(Σ_t γ^t r_t / temperature)]
    elbo(world, probs)            -> ()          the bound of a policy

The policy-gradient theorem is ∇J = Σ_t Σ_s P(s_t = s) Σ_a Q_t(s, a) ∇π(a | s).

References:
    Policy gradient methods for reinforcement learning with function approximation. R. S. Sutton, D. McAllester,
    S. Singh, Y. Mansour, 2000.
"""

import torch
from torch import Tensor

from models.gridworld import GridWorld


def action_values(world: GridWorld, probs: Tensor) -> Tensor:
    """Q_t(s, a): the expected discounted reward of steps t, t + 1, …, each with its own γ^t, (T, S, 4)."""
    found, value = [], torch.zeros_like(probs[:, 0])
    for t in reversed(range(world.horizon)):
        found.append(_over_directions(world, world.discount**t * world.pays.to(probs) + value[world.follows]))
        value = (probs * found[-1]).sum(-1)
    return torch.stack(found[::-1])


def expected_return(world: GridWorld, probs: Tensor) -> Tensor:
    """J of a policy that draws move a in cell s with probability probs[s, a]."""
    return (probs * action_values(world, probs)[0]).sum(-1)[world.start]


def visits(world: GridWorld, probs: Tensor) -> Tensor:
    """The probability of each cell before step t, (T, S)."""
    here = torch.zeros_like(probs[:, 0])
    here[world.start] = 1.0
    found = []
    for _ in range(world.horizon):
        found.append(here)
        going = _over_directions(world, (here[:, None] * probs), to=True)  # (S, 4) by direction
        here = torch.zeros_like(here).index_add(0, world.follows.flatten(), going.flatten())
    return torch.stack(found)


def best_return(world: GridWorld) -> Tensor:
    """The return of the best policy, which may depend on the step."""
    value = torch.zeros_like(world.pays[:, 0])
    for t in reversed(range(world.horizon)):
        value = _over_directions(world, world.discount**t * world.pays + value[world.follows]).amax(-1)
    return value[world.start]


def log_evidence(world: GridWorld) -> Tensor:
    """The log-evidence of the model: the bound of the best guide that also knew where the moves are blown to."""
    value = torch.zeros_like(world.pays[:, 0])
    for t in reversed(range(world.horizon)):
        exponent = world.discount**t * world.pays / world.temperature + value[world.follows]
        value = _over_directions(world, exponent.exp()).mean(-1).log()
    return value[world.start]


def elbo(world: GridWorld, probs: Tensor) -> Tensor:
    """E_π[Σ_t γ^t r_t] / temperature − Σ_t E_π[KL(π(· | s_t) ‖ uniform)]."""
    divergence = (torch.special.xlogy(probs, probs) - probs * torch.as_tensor(0.25).log()).sum(-1)  # (S,)
    return expected_return(world, probs) / world.temperature - (visits(world, probs) * divergence).sum()


def _over_directions(world: GridWorld, of: Tensor, to: bool = False) -> Tensor:
    """Values by direction averaged to values by move, (S, 4); with `to`, masses of moves carried to directions."""
    drift = world.drift.to(of)
    return of @ (drift if to else drift.mT)
