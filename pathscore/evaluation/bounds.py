"""Bounds on the log-likelihood of data under any model/guide pair: the ELBO and its parts, and the K-sample bound.

`elbo(model, guide, x, samples=…, seed=…) -> Elbo` and `importance_bound(model, guide, x, num_particles=…, seed=…) ->
(N,)`, per data point, in nats. The programs are as in `pathscore.evaluation.weights`. Both work in passes of constant
size with a running log-sum-exp, so memory does not grow with the number of particles or data points. N data points,
K particles.
"""

import math
from typing import NamedTuple

import torch
from tqdm import tqdm

from pathscore import exact
from pathscore.errors import NumericsError
from pathscore.evaluation.weights import Data, Program, as_data, checked, chunks, draw, isolated, plate_depth


class Elbo(NamedTuple):
    """Per data point, (N,), in nats: elbo = −(rate + distortion)."""

    elbo: torch.Tensor
    rate: torch.Tensor
    distortion: torch.Tensor


def standard_error(values: torch.Tensor) -> float:
    """Standard error of the mean of independent values; NaN for one value."""
    return (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else math.nan


def elbo(model: Program, guide: Program, x: torch.Tensor | Data, *, samples: int = 1, seed: int = 0) -> Elbo:
    """The ELBO of each data point and its two parts, from `samples` draws of the guide per data point.

        rate = E_q[log q(z | x) − log p(z)]        distortion = −E_q[log p(x | z)]

    References: Alemi et al., "Fixing a broken ELBO", 2018.
    """
    data = as_data(x)
    found = []
    with isolated(data, seed):
        depth = plate_depth(model, guide, data)
        pieces, counts = chunks(data, samples)
        for piece in pieces:
            parts = torch.zeros(2, len(piece[0]), dtype=torch.float64, device=data[0].device)
            for count in counts:
                w = draw(model, guide, piece, count, depth)
                parts += torch.stack([(w.log_q - w.log_prior).sum(0), -w.log_likelihood.sum(0)])
            found.append(parts / samples)
    rate, distortion = torch.cat(found, 1)
    return Elbo(-(rate + distortion), rate, distortion)


def importance_bound(
    model: Program,
    guide: Program,
    x: torch.Tensor | Data,
    *,
    num_particles: int = 5000,
    seed: int = 0,
    progress: bool | None = None,
) -> torch.Tensor:
    """The K-sample bound of each data point, (N,) float64.

        log 1/K Σ_k p(x, z_k) / q(z_k | x),   z_k ~ q(z | x)

    Its expectation is at most log p(x) and increases with K, for discrete and continuous latents. The weights are
    formed per data point, before any subsampling scale. `progress` None shows a bar on a terminal after two seconds.

    References: Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016.
    """
    data = as_data(x)
    found = []
    with isolated(data, seed), checked(model, guide, data) as depth:
        pieces, counts = chunks(data, num_particles)
        hide = None if progress is None else not progress
        with tqdm(total=len(data[0]), desc="log-likelihood", unit="x", disable=hide, delay=2, leave=False) as bar:
            for piece in pieces:
                total = torch.full((len(piece[0]),), -torch.inf, dtype=torch.float64, device=data[0].device)
                for count in counts:
                    log_w = draw(model, guide, piece, count, depth).log_w
                    total = torch.logaddexp(total, log_w.logsumexp(0).double())
                found.append(total - math.log(num_particles))
                bar.update(len(piece[0]))
    return refuse_nan(torch.cat(found))


def refuse_nan(values: torch.Tensor) -> torch.Tensor:
    """Return the values of the data points. Raises NumericsError, which names the first one that is NaN."""
    bad = values.isnan()
    if bad.any():
        raise NumericsError(
            f"the log-probabilities of {int(bad.sum())} data points are NaN, the first is number "
            f"{int(bad.nonzero()[0])}: run the programs on it under pyro.validation_enabled(True), which names the site"
        )
    return values


def exact_log_likelihood(model: Program, guide: Program, x: torch.Tensor | Data) -> torch.Tensor:
    """log p(x) of each data point, (N,): the sum over every state of the latents.

    Raises UsageError as `exact.log_evidence` does: more than 2^14 joint states, no finite support, a global latent.
    """
    data = as_data(x)
    with isolated(data, 0):
        states = exact.count_states(model, guide, *(t[:2] for t in data))
        pieces, _ = chunks(data, states)
        return torch.cat([exact.log_evidence(model, guide, *piece).double() for piece in pieces])
