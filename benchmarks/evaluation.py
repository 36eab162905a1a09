"""The importance bound on a case's sizes: `evaluation(case, points, particles) -> Evaluation`.

Time is proportional to the number of data points, so the time for `DATA` of them is extrapolated from a few. Memory
must not grow with their number.
"""

import time
from typing import NamedTuple

import torch
from torch import nn

from benchmarks.cases import Case
from benchmarks.footprint import peak_megabytes
from guides import AmortizedGuide
from models import VAE
from pathscore.evaluation import importance_bound

DATA, PARTICLES = 10_000, 5_000


class Evaluation(NamedTuple):
    """seconds: of `DATA` data points. products: share of the decoder's matrix products. megabytes: peak memory."""

    seconds: float
    products: float
    megabytes: float


def evaluation(case: Case, points: int, particles: int = PARTICLES) -> Evaluation:
    """Measure on `points` data points, and scale to `DATA`."""
    model, guide = VAE(**case.sizes), AmortizedGuide(**case.sizes)
    x = case.data()[:1].expand(points, -1)
    importance_bound(model, guide, x[:1], num_particles=particles)
    begun = time.perf_counter()
    importance_bound(model, guide, x, num_particles=particles)
    seconds = time.perf_counter() - begun
    return Evaluation(seconds * DATA / points, products(model, points, particles) / seconds, peak_megabytes())


def products(model: VAE, points: int, particles: int) -> float:
    """Seconds for the decoder's matrix products, one data point at a time, into memory that is already allocated."""
    maps = [layer for layer in model.decoder.modules() if isinstance(layer, nn.Linear)]
    calls = [
        (torch.randn(particles, m.in_features), m.weight.detach().t(), torch.empty(particles, m.out_features))
        for m in maps
    ]
    begun = time.perf_counter()
    for _ in range(points):
        for left, right, out in calls:
            torch.mm(left, right, out=out)
    return time.perf_counter() - begun
