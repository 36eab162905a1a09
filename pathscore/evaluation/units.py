"""Active units: latent variables whose posterior mean varies with the data.

`activity(model, guide, x, …) -> dict site → (units,)`, `active_units(…) -> dict site → count`. N data points, S draws.
A unit is one event element of a latent site: a coordinate of z, or one of N one-hot variables.
"""

import math
from typing import Any

import pyro
import torch
from pyro import poutine

from pathscore.evaluation.weights import Data, Program, as_data, chunks, data_plate, isolated
from pathscore.exact.quadrature import elements
from pathscore.exact.rows import plates, trial

THRESHOLD = 0.01


def activity(
    model: Program, guide: Program, x: torch.Tensor | Data, *, samples: int = 64, seed: int = 0
) -> dict[str, torch.Tensor]:
    """A_u = Cov_x(E_q[z_u | x]) of every unit, by site.

    The inner mean is that of q's distribution at the site, averaged over `samples` draws of the sites upstream. The
    first layer has no sites upstream, so its mean is exact. The covariance uses the averages over two independent
    halves of the draws, so the noise of the inner mean does not add to it: the expectation is 0 for inactive units. A
    one-hot variable counts with its most active class.

    References: Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016 (section 5.2).
    """
    data = as_data(x)
    half = max(1, samples // 2)
    with isolated(data, seed):
        sites, depth = trial(model, guide, tuple(t[:2] for t in data), {})
        pieces, _ = chunks(data, half)
        halves = [[_means(guide, piece, [name for name, _ in sites], half, depth) for piece in pieces] for _ in (0, 1)]
        found = {}
        for name, site in sites:
            a, b = (torch.cat([means[name] for means in part]) for part in halves)  # (N, *event)
            covariance = ((a - a.mean(0)) * (b - b.mean(0))).sum(0) / max(1, len(a) - 1)
            units = math.prod(elements(site["fn"]))
            found[name] = covariance.reshape(units, -1).amax(1)
    return found


def _means(guide: Program, piece: Data, names: list[str], draws: int, depth: int) -> dict[str, torch.Tensor]:
    """E_q[z | x] by site, averaged over draws of the sites upstream: (B, …, *event)."""
    with pyro.plate("_particles", draws, dim=-depth - 1):
        nodes: Any = poutine.trace(guide).get_trace(*piece).nodes
    found = {}
    for name in names:
        site = nodes[name]
        plate = data_plate(name, plates(site), len(piece[0]))
        found[name] = _mean(site).mean(0).movedim(plate - len(site["fn"].event_shape), 0)
    return found


def _mean(site) -> torch.Tensor:
    """The mean of a site's distribution, or its draw where the distribution has no mean (Categorical)."""
    try:
        mean = site["fn"].mean
    except NotImplementedError:
        return site["value"].to(torch.get_default_dtype())
    drawn = bool(mean.isnan().any())
    return site["value"].to(mean) if drawn else mean


def active_units(model: Program, guide: Program, x: torch.Tensor | Data, **options) -> dict[str, int]:
    """The number of units with A_u > 0.01, by site; options as in `activity`."""
    return {name: int((a > THRESHOLD).sum()) for name, a in activity(model, guide, x, **options).items()}
