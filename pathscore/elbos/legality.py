"""Whether an estimator can serve a site: `refusal(…)` for a program's site, `require_legal(…)` as a step is laid out.

An estimator refuses distributions (`Estimator.refusal`), the objective refuses estimators, and the program may read a
site's value, or tie the members of a plate, in a way that an estimator cannot follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pathscore.elbos import members
from pathscore.elbos.dependence import TermKey
from pathscore.errors import UsageError
from pathscore.estimators import ESTIMATORS, Estimator, Score
from pathscore.estimators.families import can_relax, family_name

Refuse = Callable[[Estimator], str | None]
"""Why the objective or the program forbids an estimator at a site; None where they do not."""

MANY = 8
"""Particles that are enough for every estimator."""


def legal_names(fn: Any, model_site: Any, particles: int) -> list[str]:
    """Names of the estimators that can serve a site."""
    return [n for n, cls in ESTIMATORS.items() if refusal(cls(), fn, model_site, particles) is None]


def refusal(estimator: Estimator, fn: Any, model_site: Any, particles: int) -> str | None:
    """Why an estimator cannot serve a site of this program; None when it can."""
    reason = estimator.refusal(fn, particles)
    if reason is None and estimator.relaxed and model_site is not None and not can_relax(model_site["fn"]):
        return (
            f"{estimator.name} relaxes values, and the model's {family_name(model_site['fn'])} has no linear extension"
        )
    return reason


def require_legal(estimator: Estimator, site: dict, model_site: Any, particles: int, here: Refuse) -> None:
    """Raise UsageError, with the names that are legal, for an estimator that cannot serve a site of this program."""
    reason = refusal(estimator, site["fn"], model_site, particles) or here(estimator)
    if reason:
        now, many = (
            [n for n in legal_names(site["fn"], model_site, k) if here(ESTIMATORS[n]()) is None]
            for k in (particles, max(particles, MANY))
        )
        more = [n for n in many if n not in now]
        others = f"; legal here: {', '.join(now)}" if now else ""
        others += f"; with more particles also {', '.join(more)}" if more else ""
        raise UsageError(f"--estimator: site '{site['name']}': {reason}{others}")


def require_apart(sites: Mapping[str, Any]) -> None:
    """Raise UsageError where particles that one site couples are baselines of each other at another site."""
    coupled = [s for s in sites.values() if s.estimator.couples_particles]
    compared = [s for s in sites.values() if compares_particles(s.estimator)]
    if coupled and compared:
        one, other = coupled[0], compared[0]
        raise UsageError(
            f"--estimator: {other.estimator.name} at site '{other.name}' compares particles as independent draws, and "
            f"{one.estimator.word} at site '{one.name}' couples them: leave draws= out, or use score-avg at "
            f"'{other.name}'"
        )


def compares_particles(estimator: Estimator) -> bool:
    """Whether an estimator's baseline is made of the other particles' costs."""
    baselines = estimator.baselines if isinstance(estimator, Score) else ()
    # A ModuleList types its members as modules; these are baselines.
    return estimator.compares_particles or any(b.compares_particles for b in baselines)  # type: ignore[union-attr]


def refusal_here(
    refuse: Callable[[Estimator, str], str | None],
    ties: Callable[[], dict],
    cuts: Callable[[str], Iterable[TermKey]],
    site: str,
    estimator: Estimator,
) -> str | None:
    """Why the objective, or how the program reads the site, forbids an estimator there."""
    reason = refuse(estimator, site)
    if reason is None and estimator.one_at_a_time and site in ties():
        return members.refusal(estimator.name, *ties()[site])
    if reason is None and estimator.needs_slope and estimator.unbiased and cuts(site):
        return (
            f"{estimator.name} takes the derivative of '{min(cuts(site))[1]}' by the value, and the program reads the "
            "value as a number there (.item(), an index, a comparison): use disarm or score, or keep it a tensor"
        )
    return reason
