"""Plate members that are not independent of each other: `tied(…)` and `couplers(…)`, read from a dry run's terms.

Costs go to the members of a plate one by one. That is right while what a member changes lies in the plate too. Where a
term outside the plate depends on the members, an observed sum of them say, they are tied: a counterfactual row, which
changes all members at once, does not tell what one of them changed. Where a later draw outside the plate depends on
the members, it couples them: what depends on this draw is a cost of every member, whatever member it lies in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyro.poutine.trace_struct import Trace

from pathscore.elbos.dependence import TermKey
from pathscore.programs.traces import latent_sites, plates_of, sample_sites

Depends = Mapping[TermKey, frozenset[str]]
Find = Callable[[], Depends]
"""Finds each term's latent sites, at the price of a few runs of the programs: asked for only where plates differ."""


def terms_of(model_trace: Trace, guide_trace: Trace) -> dict[TermKey, Any]:
    """The sites behind the terms log p and log q."""
    terms: dict[TermKey, Any] = {("p", name): site for name, site in sample_sites(model_trace).items()}
    return terms | {("q", name): site for name, site in sample_sites(guide_trace).items()}


def tied(model_trace: Trace, guide_trace: Trace, find: Find) -> dict[str, tuple[str, str]]:
    """Sites in a plate with a term that depends on them and lies outside it: the names of that plate and term."""
    outside = {
        (name, key): missing
        for name, site in latent_sites(guide_trace).items()
        for key, term in terms_of(model_trace, guide_trace).items()
        if (missing := plates_of(site) - plates_of(term))
    }
    return {
        name: (min(plate.name for plate in missing), key[1])
        for (name, key), missing in outside.items()
        if name in find().get(key, frozenset())
    }


def couplers(guide_trace: Trace, find: Find) -> dict[str, dict[str, frozenset[str]]]:
    """Site → later draws that depend on it and lie outside some of its plates → the names of these plates."""
    latents = list(latent_sites(guide_trace).items())
    found: dict[str, dict[str, frozenset[str]]] = {}
    for i, (name, site) in enumerate(latents):
        for later, other in latents[i + 1 :]:
            missing = plates_of(site) - plates_of(other)
            if missing and name in find().get(("q", later), frozenset()):
                found.setdefault(name, {})[later] = frozenset(plate.name for plate in missing)
    return found


def refusal(name: str, plate: str, term: str) -> str:
    """Why an estimator of that name cannot serve a site whose members are tied."""
    return (
        f"{name} varies one member of plate '{plate}' at a time, and all members share the term '{term}', which lies "
        "outside the plate: use disarm or score there"
    )
