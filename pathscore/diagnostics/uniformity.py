"""Are these numbers uniform? The empirical-CDF test with a simultaneous band, its p-value computed without simulation.

`p_value(pit) -> float` for N independent values that are uniform on [0, 1] under the null hypothesis; `band(n,
level) -> Band` to draw around their empirical CDF. At every point t of a grid the count #{pit ≤ t} is Binomial(N,
t); the test statistic is the smallest two-sided tail probability over the grid, and its null distribution is a
Markov chain over the grid, summed exactly (Säilynoja et al. simulate or approximate it).

References: Säilynoja, Bürkner & Vehtari 2022, Graphical test for discrete uniformity and its applications in
goodness-of- fit evaluation and multiple sample comparison.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

GRID = 64
"""Points at which the empirical CDF is compared; more add power only against departures narrower than 1/64."""

TINY = 1e-10
"""Tail probabilities below this are summed over the grid, which bounds the p-value, in place of the exact recursion."""


@dataclass(frozen=True)
class Band:
    """Simultaneous band for the empirical CDF of n uniform values: it leaves the band with probability 1 − level."""

    grid: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def p_value(pit: np.ndarray) -> float:
    """P(the empirical CDF of N uniform values is at least this extreme somewhere), for values (N,)."""
    return _p_of(len(pit), _statistic(np.asarray(pit, dtype=np.float64)))


def family_p_value(pit: np.ndarray) -> tuple[float, int]:
    """For values (N, D), dependent across D: (Bonferroni p-value over D, which column is the most extreme)."""
    values = np.asarray(pit, dtype=np.float64)
    statistics = [_statistic(column) for column in values.T]
    worst = int(np.argmin(statistics))
    return min(1.0, _p_of(len(values), statistics[worst]) * len(statistics)), worst


def deviation(pit: np.ndarray) -> float:
    """Largest distance of the empirical CDF of (N,) from the diagonal, over the grid: the size of the effect."""
    grid = _grid(len(pit))
    return float(np.abs(np.searchsorted(np.sort(pit), grid, side="right") / len(pit) - grid).max())


def _statistic(pit: np.ndarray) -> float:
    """Smallest two-sided binomial tail probability of the empirical CDF over the grid."""
    grid = _grid(len(pit))
    counts = np.searchsorted(np.sort(pit), grid, side="right")
    below, above = _tails(len(pit))
    rows = np.arange(len(grid))
    return float(2 * np.minimum(below[rows, counts], above[rows, counts]).min())


@lru_cache(maxsize=32)
def band(n: int, level: float = 0.99) -> Band:
    """The band whose pointwise tail probability is as large as simultaneous coverage `level` allows."""
    low, high = 0.0, 1.0
    for _ in range(40):  # P(leave) grows with gamma in steps: bisect for the largest that keeps the level
        middle = (low + high) / 2
        low, high = (middle, high) if _p_of(n, middle) <= 1 - level else (low, middle)
    first, last = _inside(n, low)
    return Band(_grid(n), first / n, last / n)


def _grid(n: int) -> np.ndarray:
    size = min(n, GRID)
    return np.arange(1, size) / size if size > 1 else np.array([0.5])


@lru_cache(maxsize=32)
def _tails(n: int) -> tuple[np.ndarray, np.ndarray]:
    """P(C ≤ c) and P(C ≥ c) for C ~ Binomial(n, t), each (G, n + 1)."""
    counts, t = np.arange(n + 1)[None], _grid(n)[:, None]
    below = special.bdtr(counts, n, t)
    return below, np.concatenate([np.ones_like(t), special.bdtrc(counts[:, :-1], n, t)], axis=1)


def _inside(n: int, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """First and last count at each grid point whose two-sided tail probability exceeds gamma."""
    below, above = _tails(n)
    # The law is symmetric: mirrored counts are ties that differ by rounding.
    allowed = 2 * np.minimum(below, above) > gamma * (1 + 1e-9)
    first = allowed.argmax(1)
    last = n - allowed[:, ::-1].argmax(1)
    return first, np.where(allowed.any(1), last, first - 1)


@lru_cache(maxsize=4096)
def _p_of(n: int, gamma: float) -> float:
    """1 − P(the counts stay inside at every grid point), by passing the law of the count along the grid."""
    if gamma < TINY:
        return min(1.0, gamma * len(_grid(n)))
    first, last = _inside(n, gamma)
    if (last < first).any():
        return 1.0
    grid = np.concatenate([[0.0], _grid(n)])
    states, mass = np.array([0]), np.array([1.0])
    for i in range(1, len(grid)):
        step = (grid[i] - grid[i - 1]) / (1 - grid[i - 1])
        following = np.arange(first[i - 1], last[i - 1] + 1)
        mass = mass @ _binomial(n - states[:, None], following[None] - states[:, None], step)
        states = following
    return float(np.clip(1 - mass.sum(), 0.0, 1.0))


def _binomial(trials: np.ndarray, successes: np.ndarray, p: float) -> np.ndarray:
    """Binomial probabilities, 0 where successes lie outside 0 … trials."""
    possible = (successes >= 0) & (successes <= trials)
    k = np.where(possible, successes, 0)
    logs = special.gammaln(trials + 1) - special.gammaln(k + 1) - special.gammaln(trials - k + 1)
    logs = logs + special.xlogy(k, p) + special.xlog1py(trials - k, -p)
    return np.where(possible, np.exp(logs), 0.0)
