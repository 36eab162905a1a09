"""Plain words for a number: how far to trust it, by which threshold, and what to try next.

`judge(name, value, evidence=…) -> Verdict` looks the rule up in `RULES`. `evidence=False` says that the value can't be
told from a good one at the stated false-alarm rate: the verdict is then "good" whatever the value.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pathscore.diagnostics.rules import RULES


@dataclass(frozen=True)
class Verdict:
    """One line of judgement; `status` is good, watch, bad or unknown."""

    name: str
    title: str
    status: str
    value: str
    threshold: str
    meaning: str
    advice: str = ""
    about: str = "guide"

    @property
    def flagged(self) -> bool:
        """Whether a reader should act on it."""
        return self.status in ("watch", "bad")


def judge(name: str, value: float, *, evidence: bool = True, note: str = "") -> Verdict:
    """The verdict of rule `name` on a value; `note` is put after the value."""
    rule = RULES[name]
    status = rule.status(value)
    if status in ("watch", "bad") and not evidence:
        status = "good"
        # A reader who compares the value with the threshold would wonder why it isn't flagged.
        note = f"{note} (not clearly beyond the threshold)".strip() if rule.limits[0] else note
    shown = "not available" if math.isnan(value) else rule.form.format(value)
    value_text = f"{shown} {note}".strip()
    advice = rule.advice(status)
    return Verdict(name, rule.title, status, value_text, rule.threshold(), rule.meaning(status), advice, rule.about)


def not_computed(name: str, title: str, reason: str, about: str = "guide") -> Verdict:
    """A verdict that says why there is none."""
    return Verdict(name, title, "unknown", "not computed", "", reason, about=about)


def overall(verdicts: Iterable[Verdict]) -> str:
    """The worst status among the verdicts that judge something; "unknown" when none does."""
    found = {v.status for v in verdicts}
    return next((status for status in ("bad", "watch", "good") if status in found), "unknown")
