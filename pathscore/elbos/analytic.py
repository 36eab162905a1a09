"""Which sites have a KL divergence in closed form: `analytic(…) -> names`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace

from pathscore.elbos.dependence import Depends
from pathscore.errors import UsageError
from pathscore.estimators.families import family_name
from pathscore.programs.traces import sample_sites

Order = Mapping[str, int]
"""Site → its place in the order in which the guide draws them."""


def analytic(depends: Depends, order: Order, kl: str, latents: dict[str, Any], model_trace: Trace) -> frozenset[str]:
    """Sites whose log p − log q is replaced by −KL(q ‖ p): closed form known, and p's parents drawn before the site."""
    if kl == "sampled":
        return frozenset()
    chosen, reasons = set(), {}
    for name, site in latents.items():
        reason = _kl_refusal(depends, order, name, site, sample_sites(model_trace).get(name))
        if reason is None:
            chosen.add(name)
        else:
            reasons[name] = reason
    if kl == "analytic" and reasons:
        text = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise UsageError(f"--kl analytic: {text}; use --kl auto or sampled")
    return frozenset(chosen)


def _kl_refusal(depends: Depends, order: Order, name: str, site: Any, model_site: Any) -> str | None:
    if model_site is None:
        return "not a site of the model"
    if family_name(site["fn"]) == "delta":
        return "a point mass"
    later = order[name]
    parents = depends["prior", name]
    drawn_later = [p for p in parents if order[p] > later]
    if drawn_later:
        return f"its prior depends on {', '.join(sorted(drawn_later))}, drawn later by the guide"
    try:
        with torch.no_grad():
            torch.distributions.kl_divergence(site["fn"], model_site["fn"])
    except NotImplementedError:
        return f"no closed form for {type(site['fn']).__name__} against {type(model_site['fn']).__name__}"
    return None
