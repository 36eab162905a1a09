"""What may stand at the sites of a program: `grouped(sites) -> groups`, `words_for(lab, group) -> words`.

Sites that differ only in a number in their names, "z_1" … "z_40", choose together where there are many of them: one
after the other they would each get a fortieth of the time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pathscore.config import by_pattern
from pathscore.elbos.legality import refusal
from pathscore.elbos.plan import closest
from pathscore.errors import UsageError, unknown
from pathscore.estimators import ESTIMATORS, Estimator, make_estimator
from pathscore.estimators.families import family_name
from pathscore.programs.traces import plates_of

FURTHER = ("pathwise(draws=stratified)", "stl(draws=stratified)", "unordered(k=2)")
"""Words with options that are candidates beside the names of the table; draws= only with two particles or more."""

MANY = 4
"""Latent sites from which on those with alike names choose together."""

NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Group:
    """Sites that choose together: their names, their family, and the plates they are in."""

    names: tuple[str, ...]
    family: str
    plates: tuple[str, ...]

    @property
    def label(self) -> str:
        """The sites in few characters."""
        few = self.names if len(self.names) <= 3 else (self.names[0], "…", self.names[-1])
        return ", ".join(few)


def grouped(latents: Mapping[str, Any]) -> list[Group]:
    """The latent sites of a guide in groups, in the order in which they are drawn; point masses are left out."""
    sites = {name: site for name, site in latents.items() if family_name(site["fn"]) != "delta"}
    found: dict[Any, list[str]] = {}
    for name, site in sites.items():
        alike = NUMBER.sub("#", name) if len(sites) >= MANY else name
        found.setdefault((alike, *_kind(site)), []).append(name)
    return [Group(tuple(names), family, plates) for (_, family, plates), names in found.items()]


def chosen_among(latents: Mapping[str, Any], sites: Collection[str] | None) -> dict[str, Any]:
    """The latent sites of these names; all where none are given. Raises UsageError for a name that is none of them."""
    for name in sites or ():
        if name not in latents:
            raise unknown("latent site", name, latents)
    return {name: site for name, site in latents.items() if sites is None or name in sites}


def words_for(lab: Any, group: Group, biased: bool) -> list[str]:
    """The estimators that can serve every site of a group with the lab's particles; biased ones only where asked for.

    More particles for those that need them would be another step: its variance falls whatever the estimator.
    """
    further = [word for word in FURTHER if lab.particles > 1 or "draws=" not in word]
    words = [name for name in ESTIMATORS if name != "auto"] + further
    return [word for word in words if _legal(lab, group, make_estimator(word), biased)]


def _legal(lab: Any, group: Group, estimator: Estimator, biased: bool) -> bool:
    if not (estimator.unbiased or biased):
        return False
    return all(_serves(lab, estimator, name) for name in group.names)


def _serves(lab: Any, estimator: Estimator, name: str) -> bool:
    site, prior = lab.pair.latents[name], lab.pair.priors.get(name)
    return refusal(estimator, site["fn"], prior, lab.particles) is None and lab.refuse(estimator, name) is None


def _kind(site: Any) -> tuple[str, tuple[str, ...]]:
    return family_name(site["fn"]), tuple(sorted(plate.name for plate in plates_of(site)))


def standing(lab: Any, spec: Any) -> dict[str, tuple[str, Any]]:
    """Site → its estimator under a spec, as a word and as the lab makes it; None: Pyro's own gradient.

    Raises: UsageError where the spec cannot serve the program.
    """
    sites = {name: site for name, site in lab.pair.latents.items() if family_name(site["fn"]) != "delta"}
    if spec is None:
        words = {n: "pathwise" if getattr(s["fn"], "has_rsample", False) else "score" for n, s in sites.items()}
        return {name: (word, word) for name, word in words.items()}
    plan = lab.plan(lab.objective(spec))
    given = written(spec)
    found = {}
    for name in sites:
        site = plan.sites[name]
        word = given.get(closest(given, name) or "", site.estimator.word)
        found[name] = (site.estimator.word if site.chosen == "auto" else word, site.estimator)
    return found


def written(spec: Any) -> dict[str, str]:
    """Pattern → word of a spec, as far as it was given in words: options stay in them."""
    if isinstance(spec, str):
        return by_pattern(spec)
    items = spec.items() if isinstance(spec, Mapping) else ()
    return {pattern: word for pattern, word in items if isinstance(word, str)}


def require_free(latents: Mapping[str, Any]) -> None:
    """Raise UsageError where a site's estimator stands in the program itself, which no flag changes."""
    fixed = [name for name, site in latents.items() if site["infer"].get("estimator")]
    if fixed:
        raise UsageError(
            f"the program names the estimator of {', '.join(fixed)} itself, in infer=dict(estimator=…): take it out "
            "to have one recommended"
        )
