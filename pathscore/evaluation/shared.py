"""Programs whose data points share latent variables: the bound of the whole data set, and the predictive density.

`evaluate_whole(model, guide, training, held_out) -> dict`. Each draw of the guide is a separate pass, so the programs
need not broadcast over particles. S draws, N data points.
"""

import math
from collections.abc import Iterator

import torch
from pyro import poutine

from pathscore.evaluation.bounds import standard_error
from pathscore.evaluation.weights import Data, Program, data_plate, isolated
from pathscore.exact.rows import plates

SAMPLES = 200


def evaluate_whole(
    model: Program, guide: Program, training: Data, held_out: Data, *, samples: int = SAMPLES, seed: int = 0
) -> dict[str, float | None]:
    """The figures of a run's summary, from `samples` draws of the guide, at most `SAMPLES`.

    bound, bound_se: the ELBO of the training set in nats, and its Monte Carlo standard error.
    predictive_density, predictive_density_se: the mean log predictive density of held-out data points in nats, and its
        standard error over the data; None without held-out data.
    """
    samples = min(samples, SAMPLES)
    values = whole_bound(model, guide, training, samples=samples, seed=seed)
    found: dict[str, float | None] = {"bound": values.mean().item(), "bound_se": standard_error(values)}
    if held_out:
        density = predictive_density(model, guide, held_out, samples=samples, seed=seed + 1)
        found |= {"predictive_density": density.mean().item(), "predictive_density_se": standard_error(density)}
    return found


def whole_bound(model: Program, guide: Program, args: Data, *, samples: int = SAMPLES, seed: int = 0) -> torch.Tensor:
    """log p(x, z) − log q(z) for each draw z ~ q, (S,) float64. Their mean estimates the ELBO of the whole data set."""
    device = args[0].device if args else torch.device("cpu")
    with isolated((torch.zeros(1, device=device),), seed):
        pairs = _passes(model, guide, args, samples)
        return torch.stack([(p.log_prob_sum() - q.log_prob_sum()).double() for p, q in pairs])


def predictive_density(
    model: Program, guide: Program, args: Data, *, samples: int = SAMPLES, seed: int = 0
) -> torch.Tensor:
    """The log predictive density of each data point, (N,) float64.

        log 1/S Σ_s p(x_n, z_n | g_s) / q(z_n | g_s),   g_s, z_n ~ q

    g are the latents that all data points share. z_n are the latents of one data point, where there are any.

    References: Vehtari, Gelman & Gabry, "Practical Bayesian model evaluation", 2017.
    """
    points = len(args[0])
    total = torch.full((points,), -torch.inf, dtype=torch.float64, device=args[0].device)
    with isolated(args, seed):
        for p, q in _passes(model, guide, args, samples):
            density = _in_plate(p, points) - _in_plate(q, points)
            total = torch.logaddexp(total, density)
    return total - math.log(samples)


def _passes(model: Program, guide: Program, args: Data, samples: int) -> Iterator[tuple]:
    """Traces of model and guide, one pair per draw."""
    for _ in range(samples):
        q = poutine.trace(guide).get_trace(*args)
        p = poutine.trace(poutine.replay(model, trace=q)).get_trace(*args)
        for trace in (p, q):
            trace.compute_log_prob()
        yield p, q


def _in_plate(trace, points: int) -> torch.Tensor:
    """Sum the unscaled log-probabilities of the sites in the plate over data points, for each point, (N,)."""
    total = torch.zeros(points, dtype=torch.float64)
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or not any(f.size == points for f in plates(site)):
            continue
        log = site["unscaled_log_prob"]
        plate = data_plate(name, plates(site), points)
        others = [d for d in range(-log.dim(), 0) if d != plate]
        log = log.sum(others) if others else log
        total = total.to(log.device) + log.double().expand(points)
    return total
