"""What the guide does with its latent variables: which units carry information, and whether the prior looks the same.

`use(model, guide, args) -> LatentUse`. A unit is one independent coordinate of a latent site: an element of a
vector, or one of the N one-hot variables of a categorical layer. Rate per unit is E_q[log q(z_u | ·) − log p(z_u |
·)] averaged over the data, nats; a unit is active when the guide's mean of it moves over the data by more than 0.01
in variance.

    rate = mutual information I_q(x; z) + KL(q̄(z) ‖ p(z)),   q̄(z) = mean over the data of q(z | x)

References: Burda, Grosse & Salakhutdinov 2016 (active units); Hoffman & Johnson 2016, ELBO surgery; Lucas, Tucker,
Grosse & Norouzi 2019, Don't blame the ELBO! (collapse).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.distributions import Independent

from pathscore.diagnostics.layout import Layout, Site
from pathscore.diagnostics.programs import draw, guide_values, prepare, replay, simulate
from pathscore.diagnostics.rows import row_plate
from pathscore.diagnostics.seeding import seeded
from pathscore.errors import UsageError
from pathscore.evaluation.units import THRESHOLD, activity

POOL = 20_000
"""Draws kept of the aggregate posterior and of the prior, for histograms and their moments."""


HELD = 2**22
"""Latent values held at once; a few copies of them in double precision are made."""


@dataclass(frozen=True)
class SiteUse:
    """One latent site with U units and N data points."""

    rate: np.ndarray  # (U,) nats
    mean_variance: np.ndarray  # (U,) variance over the data of the guide's mean, by `evaluation.activity`
    means: np.ndarray  # (N, *event) the guide's mean of each data point
    aggregate: np.ndarray  # (M, *event) draws of q̄(z)
    prior: np.ndarray  # (M, *event) draws of p(z)
    discrete: bool

    @property
    def active(self) -> np.ndarray:
        """Which units are active, (U,)."""
        return self.mean_variance > THRESHOLD

    @property
    def mismatch(self) -> np.ndarray:
        """|Mean under q̄ − mean under p| of each unit, in standard deviations of p; the largest over classes."""
        spread = np.maximum(self.prior.std(0), 1e-6)
        return _units(np.abs(self.aggregate.mean(0) - self.prior.mean(0)) / spread, np.max)

    @property
    def marginal_gap(self) -> np.ndarray:
        """KL(q̄ ‖ p) of each unit's own law, (U,) nats; for continuous units that of its first two moments.

        Given its mean and variance, a law is no closer to a Normal prior than the Normal with them: a lower bound.
        """
        q, p = self.aggregate, self.prior
        if self.discrete and q.ndim == 3:  # one-hot
            return _divergence(q.mean(0), p.mean(0)).sum(-1)
        if self.discrete and max(q.max(), p.max()) <= 1 and min(q.min(), p.min()) >= 0:
            on, prior = q.mean(0), p.mean(0)
            return np.ravel(_divergence(on, prior) + _divergence(1 - on, 1 - prior))
        spread = np.maximum(p.std(0), 1e-6)
        ratio = np.maximum((q.std(0) / spread) ** 2, 1e-12)
        return np.ravel(0.5 * (ratio + ((q.mean(0) - p.mean(0)) / spread) ** 2 - 1 - np.log(ratio)))

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation under q̄ relative to p per unit."""
        return _units(self.aggregate.std(0) / np.maximum(self.prior.std(0), 1e-6), np.mean)


@dataclass(frozen=True)
class LatentUse:
    """All sites, and the decomposition of the rate where there is one latent site (None with several)."""

    sites: dict[str, SiteUse]
    information: float | None  # I_q(x; z), at most log N

    @property
    def rate(self) -> float:
        """KL(q ‖ p) of a data point, nats: the sum over sites and units."""
        return float(sum(site.rate.sum() for site in self.sites.values()))

    @property
    def active_share(self) -> float:
        """Active units over units, all sites together."""
        active = np.concatenate([site.active for site in self.sites.values()])
        return float(active.mean())

    @property
    def marginal_gap(self) -> float:
        """A lower bound of KL(q̄(z) ‖ p(z)) for independent priors, nats: the sum over units of their own divergence."""
        return float(sum(site.marginal_gap.sum() for site in self.sites.values()))

    @property
    def gap_noise(self) -> float:
        """What `marginal_gap` is at most of exact posteriors, nats: χ² / 2 of two moments of N points for each unit.

        Mean U / N and variance U / N², of U units; four standard deviations above the mean.
        """
        points = len(next(iter(self.sites.values())).means)
        units = sum(len(site.rate) for site in self.sites.values())
        return (units + 4 * units**0.5) / points

    @property
    def aggregate_gap(self) -> float | None:
        """KL(q̄(z) ‖ p(z)), nats; None where the information comes within 1 nat of its limit log N, or isn't known."""
        points = len(next(iter(self.sites.values())).means)
        if self.information is None or self.information > np.log(points) - 1:
            return None
        return max(self.rate - self.information, 0.0)


def _divergence(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    """q log(q / p), 0 where q is 0; frequencies of 0 in p are taken as less than one draw."""
    return np.where(q > 0, q * np.log(np.maximum(q, 1e-30) / np.maximum(p, 0.5 / POOL)), 0.0)


def _units(values: np.ndarray, reduce) -> np.ndarray:
    """(*event) → (U,): classes of a one-hot variable belong to one unit."""
    return reduce(values.reshape(len(values), -1), axis=1) if values.ndim else values.reshape(1)


def use(model: Callable, guide: Callable, args: tuple, *, draws: int = 200, seed: int | None = None) -> LatentUse:
    """Measure every latent site that lies in the same plates as the data.

    `draws` of the guide for each data point, fewer where the latents of all draws would be more than HELD numbers.
    Raises UsageError when there is none: a global latent has no aggregate over the data.
    """
    with torch.no_grad(), seeded(seed):
        layout = prepare(model, guide, args)
        local = [s for s in layout.of("latent") if s.plates and len(s.plates) == len(layout.common)]
        if not local or row_plate(layout, args)[0] is None:
            raise UsageError(
                "active units are counted over latents local to each data point, and this program has none in a plate "
                "as long as its first argument"
            )
        draws = max(2, min(draws, HELD // layout.latent_elements))
        found = draw(model, guide, layout, draws, args, extra=lambda m, g: _rates(m, g, local))
        names = [s.name for s in local]
        prior = simulate(model, layout, max(2, min(draws, POOL // local[0].shape[0])), args, keep=names)
        moved = activity(model, guide, args, seed=seed or 0)
        sites = {
            s.name: _site_use(s, found.values[s.name], found.extra[s.name], prior[s.name], moved[s.name]) for s in local
        }
        return LatentUse(sites, _information(guide, layout, local, args))


def _rates(model_nodes: dict, guide_nodes: dict, sites: list[Site]) -> dict[str, torch.Tensor]:
    """log q − log p of every unit, (S, …, U); S leads wherever the program broadcasts over draws."""
    rates = {}
    for site in sites:
        if site.name in guide_nodes:
            value = guide_nodes[site.name]["value"]
            q, p = (unit_log_prob(nodes[site.name]["fn"], value) for nodes in (guide_nodes, model_nodes))
            if q.shape[-1] != p.shape[-1]:  # a joint law on one side: the event can only be one unit
                q, p = q.sum(-1, keepdim=True), p.sum(-1, keepdim=True)
            rates[site.name] = (q - p)[None] if (q - p).dim() == 0 else q - p
    return rates


def unit_log_prob(fn, value: torch.Tensor) -> torch.Tensor:
    """log_prob of each independent element of the event: (…, U), or (…, 1) for an event that is one unit."""
    units = 0
    while isinstance(fn, Independent):
        units += fn.reinterpreted_batch_ndims
        fn = fn.base_dist
    logs = fn.log_prob(value)
    return logs.flatten(logs.dim() - units) if units else logs[..., None]


def _site_use(
    site: Site, values: torch.Tensor, rates: torch.Tensor, prior: torch.Tensor, moved: torch.Tensor
) -> SiteUse:
    """Averages of draws (S, *plates, *event) over draws and data."""
    event = site.shape[len(site.plates) :]
    values, prior = (v.reshape(len(v), -1, *event).double() for v in (values, prior))
    pool = slice(None, None, max(1, values.shape[0] * values.shape[1] // POOL))
    moved = moved if len(moved) == rates.shape[-1] else moved.amax(0, keepdim=True)
    return SiteUse(
        rate=rates.reshape(-1, rates.shape[-1]).double().mean(0).numpy(),
        mean_variance=moved.double().numpy(),
        means=values.mean(0).numpy(),
        aggregate=values.flatten(0, 1)[pool].numpy(),
        prior=prior.flatten(0, 1)[pool].numpy(),
        discrete=site.discrete,
    )


def _information(guide: Callable, layout: Layout, sites: list[Site], args: tuple) -> float | None:
    """I_q(x; z) = E[log q(z | x) − log q̄(z)], for one latent site; about 2 000 draws in all."""
    if len(sites) != 1 or len(layout.common) != 1 or not layout.vectorised:
        return None
    site = sites[0]
    rounds = max(1, 2000 // site.shape[0])
    found = []
    for values in guide_values(guide, layout, rounds, args)[site.name]:  # (N, *event)
        cross = _cross_density(guide, layout, site, values, args)  # [i, j] = log q(z_i | x_j)
        found.append(cross.diagonal() - torch.logsumexp(cross, 1) + np.log(len(cross)))
    information = float(torch.cat(found).mean())
    return information if np.isfinite(information) else None  # a value computed from other sites has no density


def _cross_density(guide: Callable, layout: Layout, site: Site, values: torch.Tensor, args: tuple) -> torch.Tensor:
    """log q(z_i | x_j), (N, N), a hundred i at a time: the guide is replayed at each z_i for all data at once."""

    def collect(nodes: dict, count: int) -> dict[str, torch.Tensor]:
        fn = nodes[site.name]["fn"]
        return {"log_q": fn.log_prob(nodes[site.name]["value"]).reshape(count, -1).double()}

    rows = []
    for part in values.split(100):
        repeated = part[:, None].expand(len(part), len(values), *part.shape[1:])
        rows.append(
            replay(guide, layout, len(part), args, {site.name: repeated}, collect, layout.latent_elements)["log_q"]
        )
    return torch.cat(rows)
