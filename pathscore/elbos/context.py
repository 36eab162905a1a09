"""What was known before a site was drawn: the input of baselines and control networks.

Values drawn upstream and the observations, flattened to (K, *plates of the site, C).  The site's own draw, and anything
drawn after it, are never part of it.  A source in more plates than the site (data, seen from a global latent) enters
by its mean over them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pathscore.elbos.plan import Plan
from pathscore.elbos.rows import Draw
from pathscore.elbos.terms import Terms
from pathscore.programs.traces import plates_of


def make_context(plan: Plan, terms: Terms, draws: dict[str, Draw], name: str) -> Tensor:
    """Context of site `name`, (K, *plates, C), detached; a constant 1 where nothing is known."""
    target = plates_of(terms.sites[name])
    upstream = [n for n in plan.sites if plan.order[n] < plan.order[name]]
    sources = [(terms.sites[n], draws[n].fn, draws[n].value) for n in upstream]
    sources += [(site, site["fn"], site["value"]) for site in terms.observed]
    shape = terms.scores_shape(name)
    parts = [_flat(plan, site, fn, value, target, shape) for site, fn, value in sources]
    parts = [part for part in parts if part.shape[-1]]  # pyro.factor observes nothing
    if parts:
        return torch.cat(parts, -1)
    return torch.ones(*shape, 1).to(terms.terms[0].value)  # values may be class indices: take the costs' dtype


def _flat(plan: Plan, site: Any, fn: Any, value: Tensor, target: frozenset, shape: tuple[int, ...]) -> Tensor:
    event = len(fn.event_shape)
    flat = value.detach().reshape(*value.shape[: value.ndim - event], -1)
    flat = flat if flat.is_floating_point() else flat.to(torch.get_default_dtype())
    flat = flat[(None,) * (plan.max_plate_nesting + 2 - flat.ndim)]
    flat = flat[: plan.particles] if flat.shape[0] > plan.particles else flat
    extra = [f.dim - 1 for f in plates_of(site) - target]
    flat = flat.mean(extra, keepdim=True) if extra else flat
    return flat.expand(*shape, flat.shape[-1])
