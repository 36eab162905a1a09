"""Annealed importance sampling: log p(x) of models with continuous local latents.

`ais(model, guide, x, …) -> AISResult`. C chains run for each of B data points at once. A state u (C, B, D) holds all
latent sites of a data point, flattened and unconstrained (`biject_to` of each site's support, with the log-Jacobian).
The programs are not changed: a handler sets the values, and the trace has the log-probabilities.
"""

import math
from typing import Any, NamedTuple

import torch
from pyro import poutine
from tqdm import tqdm

from pathscore.evaluation.hmc import transition
from pathscore.evaluation.unconstrained import LatentSpace
from pathscore.evaluation.weights import Data, Program, as_data, chunks, isolated

TARGET_ACCEPTANCE = 0.75
ADAPTATION_GAIN = 0.1


class AISResult(NamedTuple):
    """log_likelihood (N,), log_weights (C, N), mean acceptance (N,) and effective sample size ÷ C (N,)."""

    log_likelihood: torch.Tensor
    log_weights: torch.Tensor
    acceptance: torch.Tensor
    relative_ess: torch.Tensor


def ais(
    model: Program,
    guide: Program | None,
    x: torch.Tensor | Data,
    *,
    chains: int = 16,
    temperatures: int = 200,
    leapfrog_steps: int = 10,
    seed: int = 0,
    progress: bool | None = None,
) -> AISResult:
    """Annealed importance sampling of log p(x) per data point, from the guide, or from the prior if the guide is None.

        f_β(z) = q(z)^(1 − β) p(x, z)^β,  β: 0 → 1      w = Π_t f_{β_t}(z_{t−1}) / f_{β_{t−1}}(z_{t−1})

    Between temperatures each chain takes one Hamiltonian step that leaves f_β invariant. E[w] = p(x), so log 1/C Σ w is
    in expectation a lower bound on log p(x). It becomes tight with more temperatures. A pilot run of C/4 chains adapts
    the step size of each data point and temperature to an acceptance of 0.75. The final run keeps the step sizes fixed,
    so E[w] = p(x) holds exactly. Check `relative_ess`: near 1/C, one chain dominates the estimate.

    Raises UsageError for discrete latents, latents in plates within the data plate and global latents.

    References: Neal, "Annealed importance sampling", 2001. Wu, Burda, Salakhutdinov & Grosse, "On the quantitative
    analysis of decoder-based generative models", 2017 (temperature schedule).
    """
    data = as_data(x)
    found = []
    hide = None if progress is None else not progress
    bar = tqdm(total=len(data[0]), desc="AIS", unit="x", disable=hide, delay=2, leave=False)
    with isolated(data, seed), bar:
        start = prior_of(model) if guide is None else guide
        beta = sigmoid_schedule(temperatures)
        for piece in chunks(data, chains)[0]:
            space = LatentSpace(model, start, piece, chains)
            pilot = LatentSpace(model, start, piece, max(4, chains // 4))
            steps = _pilot(pilot, beta, leapfrog_steps)
            found.append(_anneal(space, beta, leapfrog_steps, steps))
            bar.update(len(piece[0]))
    log_w, accepted = (torch.cat(parts, -1) for parts in zip(*found, strict=True))
    ess = torch.exp(2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)) / chains
    return AISResult(log_w.logsumexp(0) - math.log(chains), log_w, accepted, ess)


def _pilot(space: LatentSpace, beta: list[float], leapfrog_steps: int) -> list[torch.Tensor]:
    """Step sizes (B,) of every temperature, adapted to the acceptance in a run that is then discarded."""
    u = space.draw()  # (C, B, D)
    log_step = u.new_full(u.shape[1:2], math.log(0.5) - 0.25 * math.log(u.shape[2]))
    steps = []
    for b in beta[1:-1]:
        steps.append(log_step.exp())
        u, _, accepted = transition(space.logs, u, b, steps[-1], leapfrog_steps)
        log_step = log_step + ADAPTATION_GAIN * (accepted.mean(0) - TARGET_ACCEPTANCE)
    return steps


def _anneal(space: LatentSpace, beta: list[float], leapfrog_steps: int, steps: list[torch.Tensor]):
    """log w (C, B) and mean acceptance (B,) of one run with fixed step sizes."""
    u = space.draw()
    gap = space.gap(u)
    log_w = (beta[1] - beta[0]) * gap
    accepted = torch.zeros_like(gap)
    for t, step in enumerate(steps, start=1):
        u, gap, a = transition(space.logs, u, beta[t], step, leapfrog_steps)
        log_w = log_w + (beta[t + 1] - beta[t]) * gap
        accepted = accepted + a / len(steps)
    return log_w.double(), accepted.mean(0)


def sigmoid_schedule(count: int, width: float = 4.0) -> list[float]:
    """`count` + 1 values of β from 0 to 1, denser at both ends."""
    s = torch.sigmoid(torch.linspace(-width, width, count + 1, dtype=torch.float64))
    return ((s - s[0]) / (s[-1] - s[0])).tolist()


def prior_of(model: Program) -> Program:
    """A guide that draws the model's latent sites from the prior p(z)."""

    def observed(site: Any) -> bool:
        return site["type"] == "sample" and site["is_observed"]

    return poutine.block(model, hide_fn=observed)
