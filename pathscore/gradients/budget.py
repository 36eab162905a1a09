"""How long a measurement may take, and what of it is done: `Budget(seconds, parts)`, `progress_bar(show)`."""

from __future__ import annotations

import math
import time
from typing import Any

from tqdm import tqdm


class Budget:
    """Seconds for several parts, what one leaves over going to those after it; None for no limit.

    start: the present moment on the clock that ends are told on; `time.perf_counter` if none is given.
    """

    def __init__(self, seconds: float | None, parts: int, start: float | None = None) -> None:
        start = time.perf_counter() if start is None else start
        self.end = math.inf if seconds is None else start + seconds
        self.parts = parts

    def next(self, now: float | None = None) -> float:
        """The moment at which the part that begins now must end."""
        now = time.perf_counter() if now is None else now
        share = (self.end - now) / max(1, self.parts)
        self.parts -= 1
        return now + max(0.0, share)


def progress_bar(total: int, show: bool | None) -> Any:
    """A bar of so many parts on standard error; None: on a terminal, once a second has passed."""
    return tqdm(
        total=total, disable=None if show is None else not show, delay=1.0 if show is None else 0.0, leave=False
    )
