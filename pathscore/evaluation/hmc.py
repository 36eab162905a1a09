"""One Hamiltonian transition for many independent chains at once.

`transition(logs, u, beta, step, leapfrog_steps) -> (u, gap, acceptance)`, with the state u (C, B, D). Each chain of
each data point is accepted or rejected separately. `logs(u)` returns log q and log p, (C, B) each. The target is
q^(1 − β) p^β.

References: Neal, "MCMC using Hamiltonian dynamics", 2011.
"""

from collections.abc import Callable

import torch

Logs = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def _evaluate(logs: Logs, u: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """log p − log q (C, B), the log target (C, B) and its gradient (C, B, D)."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        log_q, log_p = logs(u)
        target = (1 - beta) * log_q + beta * log_p
        (slope,) = torch.autograd.grad(target.sum(), u)
    return (log_p - log_q).detach(), target.detach(), slope


def transition(
    logs: Logs, u: torch.Tensor, beta: float, step: torch.Tensor, leapfrog_steps: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Move the chains by `leapfrog_steps` of size `step` (B,), varied by ± 20 % at random to avoid periodic orbits.

    Returns the new state, log p − log q of it, and the acceptance probabilities (C, B). A trajectory that leaves the
    floating-point range or the support is rejected.
    """
    step = (step * (0.8 + 0.4 * torch.rand_like(u[..., 0])))[..., None]
    start_momentum = torch.randn_like(u)
    start_gap, start_target, slope = _evaluate(logs, u, beta)
    position, momentum = u, start_momentum + 0.5 * step * slope
    gap, target = start_gap, start_target
    for i in range(leapfrog_steps):
        position = position + step * momentum
        gap, target, slope = _evaluate(logs, position, beta)
        momentum = momentum + (0.5 if i == leapfrog_steps - 1 else 1.0) * step * slope
    kinetic = 0.5 * (start_momentum.square() - momentum.square()).sum(-1)
    probability = (target - start_target + kinetic).exp().clamp(max=1).nan_to_num(0.0)
    accept = torch.rand_like(probability) < probability
    return torch.where(accept[..., None], position, u), torch.where(accept, gap, start_gap), probability
