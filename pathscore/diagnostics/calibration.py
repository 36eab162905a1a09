"""Is the amortised guide calibrated? Simulation-based calibration, and coverage of its central intervals.

`calibrate(model, guide, args) -> Calibration`: draw z*, x* ~ p(z) p(x | z), draw z₁ … z_L ~ q(z | x*), and rank each
coordinate of z* among the L. If q is the posterior the ranks are uniform. Ties (discrete latents) are broken at
random, and a rank r becomes the value (r + u) / (L + 1) with u ~ U(0, 1), so that the null hypothesis is exactly
"uniform on [0, 1]", N of them independent. The data are the model's own: this tests the guide against the model's
posterior wherever the model puts data, and says nothing about whether the model fits.

References: Talts, Betancourt, Simpson, Vehtari & Gelman 2018, Validating Bayesian inference algorithms with simulation-
based calibration; Modrák et al. 2023, Simulation-based calibration checking for Bayesian computation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from pathscore.diagnostics import uniformity
from pathscore.diagnostics.layout import Layout, Site
from pathscore.diagnostics.programs import guide_values, prepare, simulate
from pathscore.diagnostics.rows import data_places, require_amortised, with_data
from pathscore.diagnostics.seeding import seeded
from pathscore.errors import UsageError

LEVELS = (0.5, 0.8, 0.95)
ALPHA = 1e-3
"""False-alarm rate of each family of tests: three families stay together under 1 %."""


@dataclass(frozen=True)
class Coverage:
    """How often a central interval of nominal probability `level` holds the true value, over all latent coordinates."""

    level: float
    observed: float
    standard_error: float  # over replicates; the coordinates of one replicate are dependent
    p_value: float


@dataclass(frozen=True)
class Calibration:
    """`pit[site]`: (N, D) values, uniform along N where the guide is exact; D counts event elements."""

    pit: dict[str, np.ndarray]
    draws: int

    @property
    def replicates(self) -> int:
        """N."""
        return len(next(iter(self.pit.values())))

    @property
    def all(self) -> np.ndarray:
        """All coordinates of all sites side by side, (N, D)."""
        return np.concatenate(list(self.pit.values()), axis=1)

    def coordinate(self, column: int) -> str:
        """Name of a column of `all`: z1[3]."""
        for site, values in self.pit.items():
            if column < values.shape[1]:
                return f"{site}[{column}]"
            column -= values.shape[1]
        raise IndexError(column)

    def uniformity(self) -> tuple[float, int]:
        """(p-value of "every coordinate is calibrated", the most extreme column), corrected for the number of them."""
        return uniformity.family_p_value(self.all)

    def coverage(self, levels: tuple[float, ...] = LEVELS) -> list[Coverage]:
        """Coverage of the central intervals, each with a two-sided p-value against its nominal level."""
        distance = np.abs(2 * self.all - 1)
        return [_coverage((distance <= level).mean(1), level) for level in levels]

    def shape(self, column: int) -> str:
        """What the ranks of one coordinate say: the guide is "too narrow", "too wide" or "shifted"."""
        pit = self.all[:, column]
        shift = abs(pit.mean() - 0.5) * np.sqrt(12)
        spread = pit.var() * 12 - 1
        if shift > abs(spread):
            return "shifted"
        return "too narrow" if spread > 0 else "too wide"


def _coverage(inside: np.ndarray, level: float) -> Coverage:
    """A t test over replicates, each contributing the share of its coordinates inside."""
    observed, n = float(inside.mean()), len(inside)
    # Never below the binomial error of fully dependent coordinates' best case: 0 spread must not give an infinite z.
    error = float(max(inside.std(ddof=1) / np.sqrt(n), 1e-9)) if n > 1 else float("nan")
    return Coverage(level, observed, error, float(2 * stats.t.sf(abs(observed - level) / error, max(n - 1, 1))))


def calibrate(
    model: Callable, guide: Callable, args: tuple, *, replicates: int = 1000, draws: int = 99, seed: int | None = None
) -> Calibration:
    """Simulate N replicates from the model and rank the true latents among L draws of the guide.

    Rows of the data plate serve as replicates, all at a time. Raises UsageError where the model has no observed site, a
    latent outside the data plate, or an observation that isn't an argument.
    """
    with torch.no_grad(), seeded(seed):
        layout = prepare(model, guide, args)
        observed, latents = _amortised(layout, args)
        rounds = -(-replicates // observed[0].shape[0])
        values = simulate(model, layout, rounds, args)
        pits: dict[str, list[np.ndarray]] = {site.name: [] for site in latents}
        for i in range(rounds):
            simulated = with_data(layout, args, {site.name: values[site.name][i] for site in observed})
            if i == 0:
                require_amortised(model, guide, layout, args, simulated)
            drawn = guide_values(guide, layout, draws, simulated)
            for name, parts in pits.items():
                parts.append(_pit(values[name][i], drawn[name]))
    return Calibration({name: np.concatenate(parts)[:replicates] for name, parts in pits.items()}, draws)


def _amortised(layout: Layout, args: tuple) -> tuple[list[Site], list[Site]]:
    """The observed sites and the latents to rank; refuses programs that aren't amortised over rows of the data."""
    data_places(layout, args)
    observed = layout.of("observed")
    plates = observed[0].plates
    outside = [s.name for s in (*layout.of("latent"), *observed) if s.plates != plates or not plates]
    if outside:
        raise UsageError(
            f"simulation-based calibration needs sites local to each data point; {', '.join(outside[:5])} are not: "
            "compare them with MCMC"
        )
    return observed, layout.of("latent")


def _pit(truth: torch.Tensor, drawn: torch.Tensor) -> np.ndarray:
    """Randomised rank of truth (N, *event) among drawn (L, N, *event), in [0, 1], with the event flattened: (N, D)."""
    less, equal = (drawn < truth).sum(0), (drawn == truth).sum(0)
    rank = less + (torch.rand(less.shape) * (equal + 1)).floor().clamp(max=equal)
    pit = (rank + torch.rand(rank.shape, dtype=torch.float64)) / (len(drawn) + 1)
    return pit.reshape(len(pit), -1).cpu().numpy()
