"""Over which plates importance weights are formed: `weight_plates(model, guide, args, kwargs, plan) -> frozenset[str]`.

log w of a data point must hold every term that its latent draws move, so weights go by the plates that all random
latent
sites, and all terms they move, have in common: {data} for local latents, none where a global latent ties the data
together.  Point masses (Delta) are parameters, not draws.  What would make the weights' mean differ from p(x) is
refused by name: a subsampled plate within a weight, and a rescaled observation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pathscore.elbos.dependence import dependence
from pathscore.elbos.plan import Plan, dry_run
from pathscore.elbos.weights import full_share, is_one, residual_scale
from pathscore.errors import UsageError
from pathscore.estimators.families import family_name
from pathscore.programs.traces import Plate, plates_of, sample_sites

Sites = dict[tuple[str, str], Any]


def weight_plates(model: Callable, guide: Callable, args: tuple, kwargs: dict, plan: Plan) -> frozenset[str]:
    """The names of the weights' plates, from one dry run that consumes no random numbers.

    Raises:
        UsageError: a subsampled plate within the weights, or a rescaled observation.
    """
    model_trace, guide_trace, _ = dry_run(model, guide, args, kwargs, plan.max_plate_nesting)
    sites: Sites = {("p", n): s for n, s in sample_sites(model_trace).items()}
    sites |= {("q", n): s for n, s in sample_sites(guide_trace).items()}
    drawn = {n for n in plan.sites if family_name(sites["q", n]["fn"]) != "delta"}
    shared = [plates_of(sites["q", n]) for n in drawn]
    common = frozenset.intersection(*shared) if shared else frozenset()
    astray = {key for key, site in sites.items() if not common <= plates_of(site)}
    if astray:  # which of them do the draws move?
        depends, _ = dependence(model, guide, args, kwargs, guide_trace, list(plan.sites))
        moved = [plates_of(sites[key]) for key in astray if depends.get(key, frozenset()) & drawn]
        common = common.intersection(*moved)
    for (_, name), site in sites.items():
        if common <= plates_of(site):
            _refuse_subsampled(name, site, common)
            _refuse_rescaled(name, site)
    return frozenset(frame.name for frame in common)


def _refuse_subsampled(name: str, site: Any, common: frozenset) -> None:
    for frame in site["cond_indep_stack"]:
        if Plate.of(frame) not in common and full_share(frame) != 1.0:
            formed = where(f.name for f in common)
            raise UsageError(
                f"site '{name}' lies in plate '{frame.name}', of which {frame.size} of {frame.full_size} members are "
                f"drawn, and the importance weights need all of them: they are formed {formed}, because a latent site, "
                f"or a term it moves, lies outside '{frame.name}'; drop subsample_size, or use --elbo trace"
            )


def where(plates: Iterable[str]) -> str:
    """The plates of the weights in words."""
    names = ", ".join(sorted(f"'{name}'" for name in plates))
    return f"per member of {names}" if names else "over the whole program"


def _refuse_rescaled(name: str, site: Any) -> None:
    if site["is_observed"] and not is_one(residual_scale(site)):
        raise UsageError(
            f"observed site '{name}' is rescaled by poutine.scale: importance weights of rescaled densities bound no "
            "evidence; scale the loss instead, or use --elbo trace"
        )
