"""`TailAdaptiveELBO`: particles weighted by the empirical tail probability of their importance weights.

    Δ = Σ_k γ̄_k ∇_z [log p(x, z_k) − log q(z_k)] ∂z_k/∂φ,   γ̄_k ∝ rank(w_k)^β, the largest w of the K has rank 1

per data point, (K, B) ranks. With β = −1 the best of K particles counts K times as much as the worst, which makes q
cover mass. Pyro's class of that name uses the sorting permutation in place of the ranks, keeps the score ∇ log q (whose
mean is not zero under weights), and weighs a minibatch as one data point; its `__init__` and arguments are kept.
"""

from typing import Any

from pyro.infer import Trace_ELBO, TraceTailAdaptive_ELBO
from pyro.infer.util import get_dependent_plate_dims, torch_sum
from pyro.poutine.trace_struct import Trace
from torch import Tensor


class TailAdaptiveELBO(TraceTailAdaptive_ELBO):
    """Tail-adaptive f-divergence for reparameterised latents and K ≥ 2 vectorised particles.

    The reported loss is −ELBO of the same draws. `tail_adaptive_beta`: β in [−1, 0).

    References: Variational inference with tail-adaptive f-divergence. D. Wang, H. Liu, Q. Liu, 2018.
    """

    loss = Trace_ELBO.loss

    def _differentiable_loss_particle(self, model_trace: Trace, guide_trace: Trace) -> tuple[float, Tensor]:
        dims = get_dependent_plate_dims(model_trace.nodes.values())
        log_p = sum(torch_sum(site["log_prob"], dims) for site in _samples(model_trace))
        log_q = sum(torch_sum(_along_the_path(site), dims) for site in _samples(guide_trace))
        log_w = log_p - log_q  # (K, B)
        assert isinstance(log_w, Tensor)
        weights = tail_weights(log_w.detach(), self.tail_adaptive_beta)
        # Pyro divides by K; the weights already sum to one.
        return -log_w.sum().item(), -(weights * log_w).sum() * self.num_particles


def tail_weights(log_w: Tensor, beta: float = -1.0) -> Tensor:
    """γ̄ ∝ rank^β over the first axis of log_w (K, …), rank 1 for the largest; each column sums to one."""
    ranks = log_w.argsort(0, descending=True).argsort(0) + 1
    gamma = ranks.to(log_w.dtype) ** beta
    return gamma / gamma.sum(0, keepdim=True)


def _samples(trace: Trace) -> list[Any]:
    return [site for site in trace.nodes.values() if site.get("type") == "sample"]


def _along_the_path(site: Any) -> Tensor:
    """log q whose gradient passes through the value alone: φ's direct part is taken off."""
    direct = site["fn"].log_prob(site["value"].detach())
    return site["log_prob"] - (direct - direct.detach())
