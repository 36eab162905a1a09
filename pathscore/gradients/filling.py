"""One estimator for a program of mixed sites: `filled(pair, name, spec, refuse) -> (label, spec)`.

An estimator rarely serves every site: DiSARM needs bits, the pathwise gradient a path. Where one that was named alone
cannot serve a site, `auto` serves it, and the label says what stands where: "y=disarm, z=pathwise".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pathscore.elbos.legality import refusal
from pathscore.estimators import Estimator, choose, make_estimator
from pathscore.estimators.families import family_name

Refuse = Callable[[Estimator, str], str | None]


def filled(pair: Any, label: str, spec: Any, particles: int, refuse: Refuse) -> tuple[str, Any]:
    """Label and spec: unchanged for a spec by site, and for an estimator that serves every site, or none.

    pair: with `latents` and `priors`, the latent sites of guide and model. refuse: why the objective cannot use an
    estimator at a site.
    """
    if not isinstance(spec, Estimator) and (not isinstance(spec, str) or "=" in spec or spec == "auto"):
        return label, spec
    estimator = make_estimator(spec)
    sites = {n: s["fn"] for n, s in pair.latents.items() if family_name(s["fn"]) != "delta"}
    own = {n: s["infer"].get("estimator") for n, s in pair.latents.items()}
    served = [n for n, fn in sites.items() if _serves(estimator, pair, n, fn, particles, refuse)]
    if len(served) in (0, len(sites)) or any(own.values()):
        return label, spec
    found: dict[str, Any] = {}
    for name, fn in sites.items():
        auto = choose(fn, particles, lambda e, site=name: refuse(e, site))
        found[name] = spec if name in served else auto
    names = {n: label if n in served else e.name for n, e in found.items()}
    return by_site(names), found


def by_site(names: dict[str, str]) -> str:
    """Estimators by site as a label: "disarm" where all are the same, else "y=disarm, z1+z2=pathwise"."""
    groups = _grouped(names)
    if len(groups) == 1:
        return groups[0][0]
    return ", ".join(f"{'+'.join(group)}={name}" for name, group in groups)


def _serves(estimator: Estimator, pair: Any, name: str, fn: Any, particles: int, refuse: Refuse) -> bool:
    count = max(particles, estimator.min_particles)
    return refusal(estimator, fn, pair.priors.get(name), count) is None and refuse(estimator, name) is None


def _grouped(names: dict[str, str]) -> list[tuple[str, list[str]]]:
    """Sites under one estimator together, in the order in which they are drawn."""
    groups: dict[str, list[str]] = {}
    for site, name in names.items():
        groups.setdefault(name, []).append(site)
    return list(groups.items())
