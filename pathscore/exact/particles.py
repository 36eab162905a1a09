"""The exact K-sample bound of very small programs: a sum over every multiset of K draws of one data point's latents.

`importance_bound(model, guide, *args, num_particles=K, **options) -> scalar`, differentiable in the parameters.
S joint states, M multisets, B data points.
"""

import itertools
import math

import torch

from pathscore.errors import UsageError
from pathscore.exact.accuracy import checked
from pathscore.exact.enumeration import STATE_LIMIT, Table, tabulate
from pathscore.exact.quantities import log_weight, shared_frames


@checked
def importance_bound(model, guide, *args, num_particles: int, alpha: float = 0.0, **options) -> torch.Tensor:
    """The exact K-sample bound, a differentiable scalar: a sum over every multiset of K draws, for very small spaces.

        Σ_n scale_n E_{z_1..z_K ~ q} 1/(1 − α) log 1/K Σ_k w_nk^(1 − α),    w_nk = p(x_n, z_k) / q(z_k | x_n)

    α = 0 gives the importance-weighted bound L_K, and K = 1 the ELBO. The weights of each data point are formed before
    the plate's scale. The order of the draws does not matter, so there are C(S + K − 1, K) multisets of states, for
    one bit K + 1. Raises UsageError when the latents do not share one plate, or for more than 2^14 multisets.

    References: Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016. Li & Turner, "Rényi
    divergence variational inference", 2016.
    """
    table = tabulate(model, guide, *args, **options)
    frames, scale = _one_plate(table)
    log_w, log_q = _local_weights(table, frames, scale)
    counts = _multisets(log_q.shape[0], num_particles, log_w)
    log_multinomial = math.lgamma(num_particles + 1) - torch.lgamma(counts + 1).sum(1)
    log_chance = log_multinomial[:, None] + counts @ log_q  # (M, B)
    order = 1.0 - alpha
    # log(count) is −inf for a state that was not drawn: it adds nothing to the sum or to the gradient.
    log_mean = (order * log_w + counts.log()[:, :, None]).logsumexp(1) - math.log(num_particles)
    return scale * (log_chance.exp() * log_mean / order).sum()


def _one_plate(table: Table) -> tuple[frozenset, float]:
    """The plates shared by all sites, and their scale N/B."""
    frames = shared_frames(table)
    outside = [s.name for s in table.latents if s.frames != frames]
    if outside:
        raise UsageError(
            f"sites {outside} do not lie in the same plates as all others: the exact K-sample bound is "
            "per data point and needs all latent sites in one plate"
        )
    return frames, math.prod(f.full_size / f.size for f in frames if f.full_size is not None)


def _local_weights(table: Table, frames: frozenset, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """log w and log q per joint state and data point, both (S, B)."""
    log_w = torch.zeros(())
    for sign, terms in ((1.0, table.log_p), (-1.0, table.log_q)):
        for term in terms:
            deeper = [f.dim for f in term.frames - frames]
            scaled = term.scaled.sum(deeper, keepdim=True) if deeper else term.scaled
            log_w = log_w + sign * scaled / scale
    log_q = log_weight(table, frames)
    log_w, log_q = torch.broadcast_tensors(log_w, log_q)
    states = math.prod(log_w.shape[: len(table.latents)])
    return log_w.reshape(states, -1), log_q.reshape(states, -1)


def _multisets(states: int, draws: int, like: torch.Tensor) -> torch.Tensor:
    """How often each state occurs, for every multiset of draws: (M, S)."""
    total = math.comb(states + draws - 1, draws)
    if total > STATE_LIMIT:
        raise UsageError(
            f"{draws} draws from {states} states make {total} multisets: the limit of the exact bound is "
            f"{STATE_LIMIT}; use fewer particles or a smaller latent"
        )
    # Stars and bars: positions of the states−1 bars among states+draws−1 places.
    bars = torch.tensor(list(itertools.combinations(range(states + draws - 1), states - 1)), dtype=torch.long)
    bars = bars.reshape(total, states - 1)
    ends = torch.cat([torch.full((total, 1), -1), bars, torch.full((total, 1), states + draws - 1)], 1)
    return (ends.diff(dim=1) - 1).to(like)
