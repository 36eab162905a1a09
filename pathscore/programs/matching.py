"""Compare the sites of model and guide, names and supports: `mismatch(model_sites, guide_sites, …) -> str | None`.

Sites are Pyro's messages by name, with the observed ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pathscore.programs.laws import is_straight_through

Sites = Mapping[str, Any]


def mismatch(model_sites: Sites, guide_sites: Sites, *, sums_out: bool = False) -> str | None:
    """Why a pair would train wrongly without an error, and the remedy; None where model and guide agree.

    sums_out: whether the objective sums out the model's discrete sites that the guide does not draw.
    """
    return (
        model_only(model_sites, guide_sites, sums_out)
        or guide_only(model_sites, guide_sites)
        or unlike_supports(model_sites, guide_sites)
    )


def model_only(model_sites: Sites, guide_sites: Sites, sums_out: bool = False) -> str | None:
    """Latent sites of the model that the guide does not draw."""
    alone = missing(model_sites, guide_sites)
    if sums_out:
        alone = [name for name in alone if not is_enumerable(model_sites[name])]
    if not alone:
        return None
    discrete = any(is_enumerable(model_sites[name]) for name in alone)
    remedy = ", or sum a discrete site out with --elbo enum (estimators cannot be named there)" * discrete
    return (
        f"the guide does not draw {_quoted(alone)} of the model, and the objective would take it from the prior, which "
        f"is another bound: add it to the guide{remedy}"
    )


def missing(model_sites: Sites, guide_sites: Sites) -> list[str]:
    """Latent sites of the model that the guide does not draw, by name; computed ones (`pyro.deterministic`) are not."""
    return [
        name
        for name, site in model_sites.items()
        if not site["is_observed"] and name not in guide_sites and not site["infer"].get("_deterministic")
    ]


def is_enumerable(site: Any) -> bool:
    """Whether a site can be summed out."""
    return bool(getattr(site["fn"], "has_enumerate_support", False))


def guide_only(model_sites: Sites, guide_sites: Sites) -> str | None:
    """Latent sites of the guide that the model does not have, and that are not marked as auxiliary."""
    alone = [
        name
        for name, site in guide_sites.items()
        if not site["is_observed"] and name not in model_sites and not site["infer"].get("is_auxiliary")
    ]
    if not alone:
        return None
    return (
        f"the model has no site {_quoted(alone)}, which the guide draws: give both the same name, or mark it with "
        'infer={"is_auxiliary": True}'
    )


def unlike_supports(model_sites: Sites, guide_sites: Sites) -> str | None:
    """A site that is discrete in one program and continuous in the other."""
    for name, site in guide_sites.items():
        other = model_sites.get(name)
        if other is None or site["is_observed"] or other["is_observed"]:
            continue
        kinds = [_is_discrete(s["fn"]) for s in (site, other)]
        if None not in kinds and kinds[0] != kinds[1]:
            q, p = (type(_base(s["fn"])).__name__ for s in (site, other))
            return (
                f"site {name!r} is {q} in the guide and {p} in the model, one of them discrete: values of the guide "
                "have no density under the model; give both distributions the same support"
            )
    return None


def _is_discrete(fn: Any) -> bool | None:
    """Whether the values of a distribution are discrete; None for a point mass, and where it does not say."""
    if is_straight_through(fn):
        return True
    if type(_base(fn)).__name__ in ("Delta", "Unit"):
        return None
    try:
        return bool(fn.support.is_discrete)
    except (AttributeError, NotImplementedError):
        return None


def _base(fn: Any) -> Any:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn


def _quoted(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:5])
