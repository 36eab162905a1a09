"""A verdict on a number: its meaning in plain words, the threshold, and what to try next.

`judge(name, value, evidence=…) -> Verdict` looks the rule up in `RULES`. `evidence=False` says that the value does not
differ significantly from a good one, at the stated false-alarm rate. The verdict is then "good" for any value.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pathscore.diagnostics.rules import RULES


@dataclass(frozen=True)
class Verdict:
    """One verdict; `status` is good, watch, bad or unknown."""

    name: str
    title: str
    status: str
    value: str
    threshold: str
    meaning: str
    advice: str = ""
    about: str = "guide"
    number: float = math.nan  # the value that was judged
    flags: str = ""  # how to follow the advice, on the command line
    python: str = ""  # and in Python

    @property
    def flagged(self) -> bool:
        """Whether a reader should act on it."""
        return self.status in ("watch", "bad")


def judge(name: str, value: float, *, evidence: bool = True, note: str = "") -> Verdict:
    """The verdict of rule `name` on a value; `note` is added after the value."""
    rule = RULES[name]
    status = rule.status(value)
    if status in ("watch", "bad") and not evidence:
        status = "good"
        # Explain why a value beyond the threshold is not flagged.
        note = f"{note} (not significantly beyond the threshold)".strip() if rule.limits[0] else note
    shown = "not available" if math.isnan(value) else rule.form.format(value)
    value_text = f"{shown} {note}".strip()
    advice = rule.advice(status)
    how = (rule.flags, rule.python) if advice else ("", "")
    texts = (rule.threshold(), rule.meaning(status), advice)
    return Verdict(name, rule.title, status, value_text, *texts, rule.about, float(value), *how)


def not_computed(name: str, title: str, reason: str, about: str = "guide") -> Verdict:
    """A verdict that says why the value was not computed."""
    return Verdict(name, title, "unknown", "not computed", "", reason, about=about)


def overall(verdicts: Iterable[Verdict]) -> str:
    """The worst status among the verdicts, ignoring unknown ones; "unknown" when there is no other."""
    found = {v.status for v in verdicts}
    return next((status for status in ("bad", "watch", "good") if status in found), "unknown")
