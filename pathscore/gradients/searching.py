"""The best estimator of each site, one group of sites after the other: `search(bench, groups, …) -> Search`.

The product over sites is too large to measure. In a first lap each group races with the other sites held: those before
it at what was picked there, those after it at `auto`. In a second lap, those that the first one did not drop race again
where another site has changed since. At the end what was composed races against what is used today and against
`auto`, so that a choice of parts that does not add up is not recommended. Every race has draws of its own.

A bench takes steps: `usable(specs) -> specs that work`, `block(spec, at) -> Block`, and `clock()`. A spec maps sites to
words. Benches: a program on this machine (recommend.py), and recorded blocks (tests, docs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pathscore.gradients.budget import Budget
from pathscore.gradients.candidates import Group
from pathscore.gradients.filling import by_site
from pathscore.gradients.racing import ROUNDS, Block, Outcome, race

Spec = dict[str, str]
ALL = "all sites"

LAP = ROUNDS
"""Blocks of a lap: a race in the next lap draws others."""


class Bench(Protocol):
    """Where steps are taken."""

    @property
    def refused(self) -> Mapping[str, str]:
        """Labels of specs that do not work (`by_site`), with the reason."""
        ...

    def usable(self, specs: Mapping[str, Spec], end: float) -> dict[str, Spec]:
        """Specs that work and for which there is time before `end`, ready to be measured; one at least."""
        ...

    def block(self, spec: Spec, at: int) -> Block:
        """A few steps. at: number of the block, of the random stream."""
        ...

    def clock(self) -> float:
        """The time in seconds."""
        ...

    def report(self, what: str, left: int) -> None:
        """Told after each round what races, and how many candidates are left."""
        ...


@dataclass(frozen=True)
class Heat:
    """One race: of which group (None: all sites), what is used there today, the other sites' words, and its outcome.

    first: the outcome of the first lap, where this is the second. untried: candidates for which there was no time.
    """

    group: Group | None
    today: str
    others: Spec
    outcome: Outcome
    first: Outcome | None = None
    untried: tuple[str, ...] = ()

    @property
    def pick(self) -> str:
        """The candidate to take."""
        return self.outcome.pick


@dataclass
class Search:
    """The last race of each group, the one of all sites, and what they found: a word for each site."""

    today: Spec
    auto: Spec
    heats: dict[Group, Heat] = field(default_factory=dict)
    whole: Heat | None = None
    found: Spec = field(default_factory=dict)


def parts(groups: Sequence[Group]) -> int:
    """The races of a search, at most."""
    return 2 * len(groups) + 1 if len(groups) > 1 else 1


def search(
    bench: Bench, groups: Sequence[Group], words: Mapping[Group, Sequence[str]], today: Spec, auto: Spec, budget: Budget
) -> Search:
    """Race each group, then the whole. words: the candidates of each group. budget: of `parts(groups)` parts."""
    result = Search(today, auto, found=dict(auto))
    for group in groups:
        race_group(bench, group, words[group], result, budget, 0)
    for group in groups if len(groups) > 1 else ():
        heat = result.heats[group]
        if len(heat.outcome.left) > 1 and heat.others != _without(result.found, group):
            race_group(bench, group, heat.outcome.left, result, budget, LAP)
        else:
            budget.parts -= 1  # what it leaves over goes to the others
    if len(groups) > 1:
        confirm(bench, result, budget)
    return result


def race_group(bench: Bench, group: Group, words: Sequence[str], so_far: Search, budget: Budget, offset: int) -> None:
    """The candidates of one group. In a tie the pick of an earlier lap wins, then what is used today, then `auto`."""
    one, earlier = group.names[0], so_far.heats.get(group)
    usual = [earlier.pick] if earlier else [so_far.today[one], so_far.auto[one]]
    ordered = dict.fromkeys([*usual, *words])
    specs = {word: so_far.found | dict.fromkeys(group.names, word) for word in ordered}
    others = _without(so_far.found, group)
    outcome, untried = run(bench, specs, group.label, budget, offset)
    so_far.heats[group] = Heat(group, so_far.today[one], others, outcome, earlier and earlier.outcome, untried)
    so_far.found.update(dict.fromkeys(group.names, outcome.pick))


def confirm(bench: Bench, result: Search, budget: Budget) -> None:
    """Race what was found against what is used today and against `auto`, and keep the best of the three."""
    specs = {by_site(spec): dict(spec) for spec in (result.found, result.today, result.auto)}
    if len(specs) > 1:
        outcome, untried = run(bench, specs, ALL, budget, 2 * LAP)
        result.whole = Heat(None, by_site(result.today), {}, outcome, untried=untried)
        result.found = specs[outcome.pick]


def run(
    bench: Bench, specs: Mapping[str, Spec], what: str, budget: Budget, offset: int
) -> tuple[Outcome, tuple[str, ...]]:
    """Race specs by label, those that work; and the labels of those for which there was no time.

    offset: number of the first block.
    """
    end = budget.next(bench.clock())
    usable = bench.usable(specs, end)
    outcome = race(
        list(usable),
        lambda name, at: bench.block(usable[name], offset + at),
        end=end,
        clock=bench.clock,
        report=lambda left, _: bench.report(what, left),
    )
    missing = (label for label in specs if label not in usable)
    return outcome, tuple(label for label in missing if by_site(specs[label]) not in bench.refused)


def _without(spec: Spec, group: Group) -> Spec:
    return {name: word for name, word in spec.items() if name not in group.names}


__all__ = ["ALL", "Bench", "Heat", "Search", "parts", "search"]
