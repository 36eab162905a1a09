"""Which of several things is best by variance × time: `race(names, draw, …) -> Outcome`, on numbers alone.

Each round draws one block of every candidate that is left. At looks, after 3, 4, 6, 10, … rounds, candidates that are
worse than the leader beyond doubt are dropped. Blocks of one round are drawn one after the other and from the same
random stream, so they are compared in pairs.

    score = variance of one gradient × time of one step,
    log (score a / score b) = log (mean v_a / mean v_b) + median over rounds of log (t_a / t_b).

v is the squared distance of a gradient from the mean of its block. The first term's standard error comes from the delta
method, se = c sd(v_a / mean v_a − v_b / mean v_b) / √N for N steps, where c makes up for the mean that the steps of a
block share; the second one's from the median absolute deviation over n rounds. Each is multiplied by a quantile of
Student's distribution, with N − 1 and n − 1 degrees of freedom.

The error rate: the probability that the best candidate is dropped is at most `ERROR`. It is divided by the number of
looks and by the number of the other candidates (Bonferroni), as far as Student's distribution describes a few
blocks: `tests/gradients/test_recommend.py` counts drops of the best, heavy tails included.

References:
    Hoeffding Races: Accelerating Model Selection Search for Classification and Function Approximation. Maron, Moore,
    1994. A Racing Algorithm for Configuring Metaheuristics. Birattari, Stützle, Paquete, Varrentrapp, 2002.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtrit

ERROR = 0.05
"""Probability, at most, that one race drops its best candidate."""

ROUNDS = 1000
FIRST_LOOK, GROWTH = 3, 1.5

CLOSE = 1.2
"""A race ends when no candidate that is left can be better than the pick by more than this factor."""

TIE = 1.1
"""Candidates whose score is within this factor of the leader's are a tie: the one named first is taken."""

NORMAL_MAD, MEDIAN_LOSS = 1.4826, 1.2533
"""Standard deviation over MAD, and standard error of a median over that of a mean, of a normal distribution."""


SHARED_MEAN = 1.31
"""c for blocks of four: Σ of the four is as noisy as of four independent ‖g − E g‖², each of them is less so."""


@dataclass(frozen=True)
class Block:
    """A few steps: squared distances ‖g − ḡ‖² n / (n − 1) of n gradients from their mean, and the time of one step.

    The mean of `squares` estimates the variance of one gradient, summed over its coordinates, without bias.
    """

    squares: tuple[float, ...]
    milliseconds: float

    @property
    def variance(self) -> float:
        """Of one gradient, by these steps alone."""
        return sum(self.squares) / len(self.squares)


@dataclass(frozen=True)
class Ratio:
    """A ratio of scores with its interval."""

    value: float
    low: float
    high: float


UNKNOWN = Ratio(math.nan, 0.0, math.inf)


@dataclass
class Outcome:
    """A race that is over.

    blocks: those of each candidate, one a round. left: candidates that were not dropped, as they were named. level: of
    the intervals at each look, two-sided.
    dropped: the others, with the round after which they were. pick: the candidate to take.
    """

    blocks: dict[str, list[Block]]
    left: list[str]
    level: float
    dropped: dict[str, int] = field(default_factory=dict)
    pick: str = ""

    @property
    def separated(self) -> bool:
        """Whether nothing that is left can be better than the pick by more than `CLOSE`."""
        rivals = [name for name in self.left if name != self.pick]
        return all(self.ratio(self.pick, name, self.level).high <= CLOSE for name in rivals)

    def ratio(self, a: str, b: str, level: float = 0.05) -> Ratio:
        """Score of a / score of b, over the rounds that both took part in; two-sided interval of error rate `level`."""
        return compared(self.blocks[a], self.blocks[b], level)


def race(
    names: Sequence[str],
    draw: Callable[[str, int], Block],
    *,
    end: float = math.inf,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
    report: Callable[[int, int], None] = lambda left, done: None,
) -> Outcome:
    """Draw until one is left, none can be `CLOSE` times better than the pick, time is over, or after so many rounds.

    names: candidates; in a tie the first one is taken. draw: one block of a candidate in a round. end: the moment on
    the clock after which no block is begun; the first round is drawn whole. report: is told after each round how
    many are left.
    """
    looks = look_rounds(rounds)
    # Only one of an interval's two sides drops; the last look, when time is over, counts too.
    level = 2 * ERROR / ((len(looks) + 1) * max(1, len(names) - 1))
    outcome = Outcome({name: [] for name in names}, list(names), level)
    for done in range(1, rounds + 1):
        if len(outcome.left) == 1 or not _round(outcome, draw, done, end, clock):
            break
        report(len(outcome.left), done)
        if done in looks and _look(outcome, done):
            break
    if len(outcome.left) > 1 and len(outcome.blocks[outcome.left[0]]) > 1:
        _look(outcome, len(outcome.blocks[outcome.left[0]]))
    outcome.pick = picked(outcome)
    return outcome


def picked(outcome: Outcome) -> str:
    """The first candidate left that ties with the leader; the first of all where there is nothing to compare."""
    first = leader(outcome)
    return next(name for name in outcome.left if name == first or outcome.ratio(name, first).value <= TIE)


def leader(outcome: Outcome) -> str:
    """The candidate left with the least score; the first one where fewer than two rounds were drawn."""
    if min(len(outcome.blocks[name]) for name in outcome.left) < 2:
        return outcome.left[0]
    return min(outcome.left, key=lambda name: outcome.ratio(name, outcome.left[0]).value)


def look_rounds(rounds: int) -> list[int]:
    """The rounds after which candidates are compared: 3, 4, 6, 10, …"""
    looks, at = [], float(FIRST_LOOK)
    while at <= rounds:
        looks.append(int(at))
        at *= GROWTH
    return looks


def compared(a: Sequence[Block], b: Sequence[Block], level: float) -> Ratio:
    """Score of a / score of b with a two-sided interval of error rate `level`; unknown with fewer than two rounds.

    The two parts of the interval, of variance and time, are joined as independent ones.
    """
    n = min(len(a), len(b))
    if n < 2:
        return UNKNOWN
    squares = [np.concatenate([block.squares for block in blocks[:n]]) for blocks in (a, b)]
    apart = np.log([x.milliseconds / y.milliseconds for x, y in zip(a[:n], b[:n], strict=True)])
    relative = [v / v.mean() for v in squares]
    size = len(squares[0])
    of_variance = SHARED_MEAN * float((relative[0] - relative[1]).std(ddof=1)) / math.sqrt(size)
    of_time = MEDIAN_LOSS * _spread(apart) / math.sqrt(n)
    reach = math.hypot(_quantile(size, level) * of_variance, _quantile(n, level) * of_time)
    middle = math.log(squares[0].mean() / squares[1].mean()) + float(np.median(apart))
    return Ratio(*(math.exp(max(-700.0, min(x, 700.0))) for x in (middle, middle - reach, middle + reach)))


def _quantile(count: int, level: float) -> float:
    return -float(stdtrit(count - 1, level / 2))


def _round(outcome: Outcome, draw: Callable, done: int, end: float, clock: Callable[[], float]) -> bool:
    """Draw one block of each candidate left; False where time was over, and the round does not count."""
    found: dict[str, Block] = {}
    for name in outcome.left:
        if done > 1 and clock() >= end:
            return False
        found[name] = draw(name, done - 1)
    for name, block in found.items():
        outcome.blocks[name].append(block)
    return True


def _look(outcome: Outcome, done: int) -> bool:
    """Drop who is worse than the leader beyond doubt; whether the race is over."""
    first = leader(outcome)
    worse = [n for n in outcome.left if n != first and outcome.ratio(n, first, outcome.level).low > 1]
    outcome.dropped.update(dict.fromkeys(worse, done))
    outcome.left = [name for name in outcome.left if name not in worse]
    outcome.pick = picked(outcome)
    return outcome.separated


def _spread(values: np.ndarray) -> float:
    """A standard deviation that outliers do not move."""
    return NORMAL_MAD * float(np.median(np.abs(values - np.median(values))))
