"""What objectives should say of a program, by summing over every multiset of K draws: values and gradients.

`bound(joint, K, alpha)` and `wake(joint, K)` of one copy's `Joint`; `exact_gradient(case, of)` and
`sampled_gradients(case, objective)` of a case (objective_cases.py).  S joint states, M multisets, N copies, P numbers.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

F64 = torch.float64
MAX_Z = 4.0
"""Of every coordinate of a gradient over N = 40 000 draws from a fixed seed, and of the reported bound."""


@dataclass
class Joint:
    """Every joint state of one copy: its chance under q, log p(x, z), log q(z | x) and, if needed, log p(z), (S,) each.

    kl_weight: β, which weighs log p(z) − log q(z | x) in the weights.
    """

    chance: Tensor
    log_p: Tensor
    log_q: Tensor
    log_prior: Tensor | None = None
    kl_weight: float = 1.0

    @property
    def log_w(self) -> Tensor:
        if self.log_prior is None:
            return self.log_p - self.log_q
        return self.log_p - self.log_prior + self.kl_weight * (self.log_prior - self.log_q)


def draws(states: int, K: int) -> tuple[Tensor, Tensor]:
    """Every multiset of K states (M, K), and in how many orders it can be drawn (M,)."""
    index = torch.tensor(list(itertools.combinations_with_replacement(range(states), K)))
    same = torch.stack([(index == s).sum(1) for s in range(states)], 1).to(F64)
    return index, (math.lgamma(K + 1) - torch.lgamma(same + 1).sum(1)).exp()


def tally(joint: Joint, K: int) -> tuple[Tensor, Tensor]:
    """(chance of a multiset of K states (M,), its states (M, K))."""
    index, orders = draws(len(joint.chance), K)
    return orders * joint.chance[index].prod(1), index


def bounds(joint: Joint, K: int, alpha: float = 0.0) -> tuple[Tensor, Tensor]:
    """(chance, 1/(1 − α) log 1/K Σ w^(1 − α)) of every multiset, (M,) each."""
    chance, index = tally(joint, K)
    powers = (1 - alpha) * joint.log_w[index]
    return chance, (powers.logsumexp(1) - math.log(K)) / (1 - alpha)


def bound(joint: Joint, K: int, alpha: float = 0.0) -> Tensor:
    """The K-sample bound: the mean of `bounds`."""
    chance, values = bounds(joint, K, alpha)
    return (chance * values).sum()


def spread(joint: Joint, K: int, alpha: float = 0.0) -> float:
    """Standard deviation of the bound of one set of K draws."""
    chance, values = (t.detach() for t in bounds(joint, K, alpha))
    return math.sqrt((chance * values.square()).sum() - (chance * values).sum() ** 2)


def wake(joint: Joint, K: int) -> Tensor:
    """What has the wake phases' expected gradient: E Σ_k v_k (log p + log q), draws and weights held."""
    chance, index = tally(joint, K)
    v = joint.log_w[index].softmax(1)
    return ((chance[:, None] * v).detach() * (joint.log_p + joint.log_q)[index]).sum()


def exact_gradient(case: Any, of: Callable[[Joint], Tensor]) -> Tensor:
    """Gradient of a quantity of the joint at one copy's parameters, scaled as the program's plate is: (P,)."""
    p = case.single()
    grads = torch.autograd.grad(of(case.joint(p)), list(p.values()), allow_unused=True)
    grads = [torch.zeros_like(t) if g is None else g for t, g in zip(p.values(), grads, strict=True)]
    return case.scale * torch.cat([g.flatten() for g in grads])


def sampled_gradients(case: Any, elbo: Any, *args: Any) -> tuple[Tensor, float]:
    """(N, P) independent gradients of the objective, and its loss over all copies."""
    for p in case.parameters.values():
        p.grad = None
    loss = elbo.loss_and_grads(case.model, case.guide, *args)
    grads = [torch.zeros_like(p) if p.grad is None else -p.grad for p in case.parameters.values()]
    return torch.cat([g.reshape(case.copies, -1) for g in grads], 1), loss
