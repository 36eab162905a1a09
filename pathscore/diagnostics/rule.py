"""One rule of judgement: two limits for a number, the words for each outcome, and what to try next."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """Limits and words for one number.

    `limits`: beyond the first the outcome is "watch", beyond the second "bad"; `rising` when larger is worse. `about`:
    "guide" or "model", whose fault a flag would be. `try_if_bad`: other advice for "bad" than for "watch".
    """

    title: str
    form: str  # format string of the value
    limits: tuple[float, float]
    good: str
    watch: str
    bad: str
    try_next: str
    try_if_bad: str = ""
    rising: bool = True
    about: str = "guide"

    def status(self, value: float) -> str:
        """good, watch or bad; unknown for NaN."""
        if math.isnan(value):
            return "unknown"
        sign = 1 if self.rising else -1
        watch, bad = (sign * limit for limit in self.limits)
        return "bad" if sign * value > bad else "watch" if sign * value > watch else "good"

    def meaning(self, status: str) -> str:
        """The sentence for an outcome."""
        return {"good": self.good, "watch": self.watch, "bad": self.bad}.get(status, "This could not be computed here.")

    def advice(self, status: str) -> str:
        """What to try next after an outcome; nothing after a good one."""
        return {"watch": self.try_next, "bad": self.try_if_bad or self.try_next}.get(status, "")

    def threshold(self) -> str:
        """The limits in words; a first limit of 0 means any size that can be told from chance."""
        side = "above" if self.rising else "below"
        watch, bad = (self.form.format(limit) for limit in self.limits)
        first = f"watch {side} {watch}" if self.limits[0] else "watch: significant at 0.1 %"
        return f"{first}, bad {side} {bad}"
