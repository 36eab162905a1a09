"""Learning-rate schedules: `factor = schedule(step)`, what the base rate is multiplied by, a pure function of the step.

Nothing here keeps state, so a resumed run needs only the step count to continue with the same rates, bit for bit.
`SCHEDULES` maps a name to a maker `make(total_steps, steps_per_pass) -> schedule`; a list of (steps, factor) pairs is
a schedule too. A linear warm-up multiplies any of them.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

from pathscore.errors import UsageError, unknown

Schedule = Callable[[int], float]


def constant(total_steps: int | None = None, steps_per_pass: int | None = None) -> Schedule:
    """The base rate throughout: factor 1."""
    return lambda step: 1.0


def cosine(total_steps: int | None = None, steps_per_pass: int | None = None) -> Schedule:
    """Half a cosine from 1 at the first step to 0 after `total_steps`: ½ (1 + cos(π step / total_steps)).

    References: SGDR: Stochastic gradient descent with warm restarts, Loshchilov & Hutter, 2017.
    """
    total = _positive(total_steps, "the cosine schedule", "total_steps")
    return lambda step: 0.5 * (1.0 + math.cos(math.pi * min(step / total, 1.0)))


def linear(total_steps: int | None = None, steps_per_pass: int | None = None) -> Schedule:
    """A straight line from 1 at the first step to 0 after `total_steps`."""
    total = _positive(total_steps, "the linear schedule", "total_steps")
    return lambda step: max(0.0, 1.0 - step / total)


def iwae(total_steps: int | None = None, steps_per_pass: int | None = None) -> Schedule:
    """10^(−i/7) for 3^i passes over the data, i = 0 … 7: 3 280 passes, a factor 10 in all.

    References: Importance weighted autoencoders, Burda, Grosse & Salakhutdinov, 2016, section 5.
    """
    steps = _positive(steps_per_pass, "the iwae schedule", "steps_per_pass")
    return stepwise([(3**i * steps, 10 ** (-i / 7)) for i in range(8)])


def stepwise(pieces: Sequence[tuple[int, float]]) -> Schedule:
    """`factor` for `steps` steps, piece after piece; the last factor stays once its steps are over.

    Raises: UsageError when there is no piece, or a number of steps below 1, or a negative factor.
    """
    if not pieces or any(steps < 1 or factor < 0 for steps, factor in pieces):
        raise UsageError("schedule: give (steps, factor) pairs with steps of at least 1 and factors of at least 0")
    ends = list(accumulate(steps for steps, _ in pieces))
    factors = [float(factor) for _, factor in pieces]

    def schedule(step: int) -> float:
        return next((factor for end, factor in zip(ends, factors, strict=True) if step < end), factors[-1])

    return schedule


def warmed_up(schedule: Schedule, steps: int) -> Schedule:
    """`schedule` times a straight line that reaches 1 at step `steps`: min(1, (step + 1) / steps)."""
    return (lambda step: schedule(step) * min(1.0, (step + 1) / steps)) if steps > 0 else schedule


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "iwae": iwae,
}


def make_schedule(
    schedule: str | Sequence[tuple[int, float]] | None,
    *,
    warmup_steps: int = 0,
    total_steps: int | None = None,
    steps_per_pass: int | None = None,
) -> Schedule:
    """The schedule of that name, or of those (steps, factor) pairs, behind a warm-up of `warmup_steps` steps.

    Raises: UsageError for an unknown name, or a length that the named schedule needs and did not get.
    """
    if schedule is None or isinstance(schedule, str):
        name = schedule or "constant"
        if name not in SCHEDULES:
            raise unknown("schedule", name, SCHEDULES)
        made = SCHEDULES[name](total_steps=total_steps, steps_per_pass=steps_per_pass)
    else:
        made = stepwise(schedule)
    return warmed_up(made, warmup_steps)


def _positive(value: int | None, what: str, name: str) -> int:
    if value is None or value < 1:
        raise UsageError(f"{what} needs {name} of at least 1, got {value}")
    return value
