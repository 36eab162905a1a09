"""A rule for a verdict: two limits for a number, a sentence for each outcome, and what to try next."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """Limits and wording for one number.

    limits: the outcome is "watch" beyond the first limit and "bad" beyond the second. A first limit of 0 means any
        value that is significant.
    rising: whether larger values are worse.
    about: "guide" or "model": what the verdict judges.
    try_if_bad: the advice for "bad", where it differs from that for "watch".
    flags, python: how to do what is advised, for a run of the command line and for a program in Python.
    """

    title: str
    form: str  # format string of the value
    limits: tuple[float, float]
    good: str
    watch: str
    bad: str
    try_next: str
    try_if_bad: str = ""
    flags: str = ""
    python: str = ""
    rising: bool = True
    about: str = "guide"

    def status(self, value: float) -> str:
        """The outcome of a value: good, watch or bad; unknown for NaN."""
        if math.isnan(value):
            return "unknown"
        sign = 1 if self.rising else -1
        watch, bad = (sign * limit for limit in self.limits)
        return "bad" if sign * value > bad else "watch" if sign * value > watch else "good"

    def meaning(self, status: str) -> str:
        """The sentence for an outcome."""
        return {"good": self.good, "watch": self.watch, "bad": self.bad}.get(status, "This could not be computed here.")

    def advice(self, status: str) -> str:
        """What to try next after an outcome; empty after a good one."""
        return {"watch": self.try_next, "bad": self.try_if_bad or self.try_next}.get(status, "")

    def threshold(self) -> str:
        """The limits in words."""
        side = "above" if self.rising else "below"
        watch, bad = (self.form.format(limit) for limit in self.limits)
        first = f"watch {side} {watch}" if self.limits[0] else "watch: significant at 0.1 %"
        return f"{first}, bad {side} {bad}"
