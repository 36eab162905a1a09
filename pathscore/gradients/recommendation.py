"""What `recommend` found: `Recommendation`; print it, or read `.spec`, `.flags`, `.python`, `.as_dict()`.

For each group of sites there is a `Choice`: what is used today, what to use, and the gain with its interval. A gain of
3 means that today's variance × time is three times as large: the same accuracy takes a third of the time.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from pathscore.gradients.filling import by_site
from pathscore.gradients.racing import CLOSE, ERROR, UNKNOWN, Outcome, Ratio
from pathscore.gradients.searching import ALL, Heat, Search
from pathscore.gradients.table import number

HEADER = ("site", "distribution", "plates", "today", "use", "gain", "95 % interval", "not worse beyond doubt")


@dataclass(frozen=True)
class Candidate:
    """One estimator in a race.

    variance: of one gradient, summed over all parameters. milliseconds: of one step, forward and backward.
    rounds: blocks of four steps that were drawn. against_pick: its score over that of the pick, 95 % interval.
    dropped: whether the race dropped it.
    """

    name: str
    variance: float
    milliseconds: float
    rounds: int
    against_pick: Ratio
    dropped: bool


@dataclass(frozen=True)
class Choice:
    """What to use at a group of sites.

    sites: names. family, plates: of their distribution; () plates for sites that all data points share, as the weights
    of a Bayesian layer. gain: score of what is used today over that of `use`, 95 % interval. separated: whether
    nothing else can be better than `use` by more than a factor of 1.2, at the race's error rate. untried: candidates
    for which there was no time.
    """

    sites: tuple[str, ...]
    label: str
    family: str
    plates: tuple[str, ...]
    today: str
    use: str
    gain: Ratio
    separated: bool
    untried: tuple[str, ...]
    candidates: tuple[Candidate, ...]

    @property
    def open(self) -> list[str]:
        """The other candidates that were not dropped."""
        return [c.name for c in self.candidates if not c.dropped and c.name != self.use]


@dataclass(frozen=True)
class Recommendation:
    """What to use at every site.

    spec, today: site → estimator, recommended and so far. particles: K.
    choices: by group of sites. whole: all sites together, today's and what was composed; None for one group.
    seconds: that it took; building: seconds of compiling among them. refused: what cannot serve, with the reason.
    """

    spec: dict[str, str]
    today: dict[str, str]
    elbo: str
    particles: int
    choices: tuple[Choice, ...]
    whole: Choice | None
    seconds: float
    building: float
    refused: dict[str, str]

    @property
    def gain(self) -> Ratio:
        """Today's variance × time over that of the recommendation, 95 % interval."""
        return self.whole.gain if self.whole else self.choices[0].gain if self.choices else Ratio(1.0, 1.0, 1.0)

    @property
    def separated(self) -> bool:
        """Whether every race found its winner."""
        return all(choice.separated for choice in self.choices)

    @property
    def word(self) -> str:
        """The spec in one word: "disarm", or "y=disarm,z=pathwise"."""
        words = set(self.spec.values())
        return words.pop() if len(words) == 1 else ",".join(f"{site}={word}" for site, word in self.spec.items())

    @property
    def flags(self) -> str:
        """The flags of the command line."""
        return f'--estimator "{self.word}"'

    @property
    def python(self) -> str:
        """The line of an own program."""
        particles = f", num_particles={self.particles}" if self.particles > 1 else ""
        return f'elbo = make_elbo("{self.elbo}", "{self.word}"{particles})'

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; None for what is infinite or unknown."""
        return _plain(
            {
                **{name: getattr(self, name) for name in ("spec", "today", "elbo", "particles", "seconds", "refused")},
                "gain": self.gain,
                "separated": self.separated,
                "choices": [_choice(c) for c in (*self.choices, *([self.whole] if self.whole else []))],
            }
        )

    def to_json(self) -> str:
        """`as_dict` as JSON."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row for each candidate of each race, unrounded."""
        import pandas

        rows = [{"sites": c["label"], **row} for c in self.as_dict()["choices"] for row in c["candidates"]]
        return pandas.DataFrame(rows).set_index(["sites", "name"])

    def table(self) -> str:
        """A line for each group of sites, and one for all together."""
        lines = [HEADER, *(_line(choice) for choice in (*self.choices, *([self.whole] if self.whole else [])))]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)

    def notes(self) -> list[str]:
        """How it was measured, and what stayed open."""
        rounds = max((c.rounds for choice in self.choices for c in choice.candidates), default=0)
        built = f", {self.building:.0f} s of it compiling" if self.building else ""
        lines = [
            f"gain: variance × time of today / of the recommendation (--elbo {self.elbo}), by all parameters; "
            f"{4 * rounds:,} steps of the longest race, {self.seconds:.0f} s{built}",
            f"a race drops its best estimator with probability {ERROR:.0%} at most",
        ]
        if opened := [choice.label for choice in self.choices if not choice.separated]:
            lines.append(f"not separated within a factor of {CLOSE:g}: {'; '.join(opened)}. Give it more seconds")
        if untried := dict.fromkeys(name for choice in self.choices for name in choice.untried):
            lines.append(f"no time to try: {', '.join(untried)}")
        if self.refused:
            lines.append(f"not legal together here: {'; '.join(self.refused)}")
        return lines

    def __str__(self) -> str:
        line = self.python if self.spec != self.today else "what is used today stays"
        return "\n".join([self.table(), "", *self.notes(), "", line])

    __repr__ = __str__  # a prompt shows the table


def summarised(result: Search, lab: Any, seconds: float, building: float, refused: dict[str, str]) -> Recommendation:
    """The races as a recommendation."""
    parts = tuple(_chosen(heat) for heat in result.heats.values())
    whole = _chosen(result.whole) if result.whole else None
    return Recommendation(
        spec=result.found, today=result.today, elbo=lab.elbo, particles=lab.particles, choices=parts,
        whole=whole, seconds=seconds, building=building, refused=refused,
    )  # fmt: skip


def _chosen(heat: Heat) -> Choice:
    outcome, group = heat.outcome, heat.group
    compared = next((o for o in (outcome, heat.first) if o and o.blocks.get(heat.today)), None)
    laps = (outcome, *([heat.first] if heat.first else []))
    drawn = {name: lap for lap in reversed(laps) for name in lap.blocks if lap.blocks[name]}
    return Choice(
        sites=group.names if group else (),
        label=group.label if group else ALL,
        family=group.family if group else "",
        plates=group.plates if group else (),
        today=heat.today,
        use=heat.pick,
        gain=compared.ratio(heat.today, heat.pick) if compared else UNKNOWN,
        separated=outcome.separated and not heat.untried,
        untried=heat.untried,
        candidates=tuple(_candidate(lap, name, heat.pick) for name, lap in drawn.items()),
    )


def _candidate(outcome: Outcome, name: str, pick: str) -> Candidate:
    blocks = outcome.blocks[name]
    times = sorted(b.milliseconds for b in blocks)
    return Candidate(
        name=name,
        variance=sum(b.variance for b in blocks) / len(blocks),
        milliseconds=times[len(times) // 2],
        rounds=len(blocks),
        against_pick=outcome.ratio(name, pick),
        dropped=name in outcome.dropped,
    )


def _line(choice: Choice) -> tuple[str, ...]:
    plates = ", ".join(choice.plates) or ("" if choice.label == ALL else "—")
    same = choice.today == choice.use
    gain = "—" if same else number(choice.gain.value)
    interval = "—" if same else f"{number(choice.gain.low)} to {number(choice.gain.high)}"
    others = ", ".join(choice.open) or "—"
    return choice.label, choice.family, plates, choice.today, choice.use, gain, interval, others


def _choice(choice: Choice) -> dict[str, Any]:
    return {**vars(choice), "candidates": [vars(c) for c in choice.candidates]}


def _plain(value: Any) -> Any:
    if isinstance(value, Ratio):
        return _plain(vars(value))
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


__all__ = ["Candidate", "Choice", "Recommendation", "by_site", "summarised"]
