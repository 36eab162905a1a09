"""`auto`: the lowest-variance unbiased choice a site's family allows, resolved when the program is first seen.

Pathwise where the distribution is reparameterised; the exact sum where the support is small; DiSARM for other discrete
sites; leave-one-out for what is left with two particles or more, a moving average with one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pathscore.errors import UsageError
from pathscore.estimators.antithetic import DiSARM
from pathscore.estimators.base import Estimator
from pathscore.estimators.families import support_size
from pathscore.estimators.pathwise import Pathwise
from pathscore.estimators.score import RLOO, ScoreAverage
from pathscore.estimators.summation import Enumerate

SMALL_SUPPORT = 16


class Auto(Estimator):
    """Stands for the estimator `choose` picks; never runs itself.

    seconds: how long a run measures at its start instead of picking by family; None: it does not measure.
    """

    name = "auto"
    formula = "pathwise, else enum (≤ 16 values), else disarm, else rloo (K ≥ 2), else score-avg"
    reference = "—"
    choices: ClassVar[tuple[type[Estimator], ...]] = (Pathwise, Enumerate, DiSARM, RLOO, ScoreAverage)

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__()
        if seconds is not None and not 0 < seconds < float("inf"):
            raise UsageError(f"seconds of auto must be positive and finite, got {seconds!r}")
        self.seconds = seconds


def choose(fn: Any, particles: int, refuse: Callable[[Estimator], str | None] = lambda estimator: None) -> Estimator:
    """The estimator `auto` stands for at a site with distribution `fn` and K particles.

    refuse: why the objective cannot use an estimator; None when it can.
    """
    for cls in Auto.choices:
        if cls is Enumerate and support_size(fn) > SMALL_SUPPORT:
            continue
        estimator = cls()
        if estimator.refusal(fn, particles) is None and refuse(estimator) is None:
            return estimator
    raise AssertionError("score-avg takes every site")
