"""Which terms of the bound depend on which latent sites, found two ways and compared.

Marks follow values through every operation on tensors, and say where a value leaves them (`.item()`, numpy, a Python
branch, an in-place write): what comes later may depend on it (programs/marks.py).  Intervention draws one site anew,
keeps the others and looks at which terms move: it sees what passes through traced modules too.  A dependence that only
intervention sees means that marks were lost: the caller is told which sites.

A term is keyed ("p", site) or ("q", site); ("prior", site) stands for the parameters of the model's distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace

from pathscore.programs.marks import NONE, Watch
from pathscore.programs.traces import sample_sites, traces
from pathscore.programs.untouched import rehearsal, untouched

TermKey = tuple[str, str]
Depends = dict[TermKey, frozenset[str]]
TRIES, DRAWS = 4, 64
"""Values of a site that a dependence is looked for with, and draws to find them: a coin often falls the same way."""


def dependence(
    model: Callable, guide: Callable, args: tuple, kwargs: dict, guide_trace: Trace, names: list[str]
) -> tuple[Depends, frozenset[str]]:
    """Each term's latent sites, and the sites whose provenance is lost on the way to some term."""
    with rehearsal(model, guide), torch.no_grad():
        watch = _marks(model, guide, args, kwargs, guide_trace, names)
        moved = _by_intervention(model, guide, args, kwargs, guide_trace, names)
    # Sets are frozen only in the type: nothing changes them any more.
    seen: Depends = watch.seen  # type: ignore[assignment]
    lost = watch.lost.union(*(moved[term] - seen.get(term, NONE) for term in moved))
    direct = {term: seen.get(term, NONE) | moved.get(term, NONE) for term in {*seen, *moved}}
    return _through_draws(direct, names), frozenset(lost)


def cut(
    model: Callable, guide: Callable, args: tuple, kwargs: dict, guide_trace: Trace, name: str
) -> frozenset[TermKey]:
    """Terms of other sites that a site's value moves, but to which no derivative by the value leads.

    The value is read as a number there (`.item()`, an index, a comparison), so its slope is not the change of the cost.
    """
    with rehearsal(model, guide), torch.no_grad():
        moved = _by_intervention(model, guide, args, kwargs, guide_trace, [name])
        leaf = sample_sites(guide_trace)[name]["value"].detach().clone().requires_grad_()
        changed = guide_trace.copy()
        changed.nodes[name] = {**changed.nodes[name], "value": leaf}
        with torch.enable_grad():
            values = _term_values(*_replayed(model, guide, args, kwargs, changed))
            terms = [key for key in moved if key[0] != "prior" and key[1] != name]
            return frozenset(key for key in terms if not _leads(values[key][0], leaf))


def _leads(term: torch.Tensor, leaf: torch.Tensor) -> bool:
    if not term.requires_grad:
        return False
    return torch.autograd.grad(term.sum(), leaf, retain_graph=True, allow_unused=True)[0] is not None


def _through_draws(direct: Depends, names: list[str]) -> Depends:
    """Add the sites that a term depends on through later draws; `names` is in the order of the guide."""
    upstream: dict[str, frozenset[str]] = {}
    for name in names:
        parents = direct.get(("q", name), NONE) - {name}
        upstream[name] = parents.union(*(upstream.get(p, NONE) for p in parents))
    return {term: sites.union(*(upstream[s] for s in sites)) for term, sites in direct.items()}


def parameters_of(fn: Any) -> list[torch.Tensor]:
    """The parameters of a distribution, with those of distributions and transforms that it is made of."""
    own = [getattr(fn, name) for name in fn.arg_constraints if name in vars(fn)]
    parts = [part for part in vars(fn).values() if isinstance(part, torch.distributions.Distribution)]
    moved = [vars(transform) for transform in getattr(fn, "transforms", ())]
    moves = [
        v for held in moved for name, v in held.items() if name in ("loc", "scale") and isinstance(v, torch.Tensor)
    ]
    return [*own, *moves, *(parameter for part in parts for parameter in parameters_of(part))]


def _marks(model: Callable, guide: Callable, args: tuple, kwargs: dict, guide_trace: Trace, names: list[str]) -> Watch:
    watch = Watch(names)
    _replayed(watch.model(model), watch.guide(guide), args, kwargs, guide_trace)
    return watch


def _by_intervention(
    model: Callable, guide: Callable, args: tuple, kwargs: dict, guide_trace: Trace, names: list[str]
) -> Depends:
    moved: dict[TermKey, set[str]] = {}
    state = torch.get_rng_state()  # the program's own noise (dropout, say) is the same in every replay
    before = _term_values(*_replayed(model, guide, args, kwargs, guide_trace))
    for name in names:
        for value in _other_values(guide_trace.nodes[name]):
            torch.set_rng_state(state)
            changed = guide_trace.copy()
            changed.nodes[name] = {**changed.nodes[name], "value": value}
            after = _term_values(*_replayed(model, guide, args, kwargs, changed))
            for term in before.keys() & after.keys():
                if not _equal(before[term], after[term]):
                    moved.setdefault(term, set()).add(name)
    return {term: frozenset(sites) for term, sites in moved.items()}


def _replayed(model: Callable, guide: Callable, args: tuple, kwargs: dict, trace: Trace) -> tuple[Trace, Trace]:
    with untouched(model, guide):  # each replay starts from the same state of the programs
        return traces(model, poutine.replay(guide, trace=trace), args, kwargs)


def _term_values(model_trace: Trace, guide_trace: Trace) -> dict[TermKey, list[torch.Tensor]]:
    guide_trace.compute_log_prob()
    model_trace.compute_log_prob()
    values: dict[TermKey, list[torch.Tensor]] = {}
    for kind, trace in (("q", guide_trace), ("p", model_trace)):
        for site in sample_sites(trace).values():
            values[kind, site["name"]] = [site["log_prob"]]
            if kind == "p":
                values["prior", site["name"]] = parameters_of(site["fn"])
    return values


def _equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _other_values(site: Any) -> list[torch.Tensor]:
    """A few values that differ from the site's: fresh draws, or of a site that hardly ever changes, its support."""
    draws = (site["fn"].sample() for _ in range(DRAWS))
    found = list(islice((d for d in draws if not torch.equal(d, site["value"])), TRIES))
    if found or not site["fn"].has_enumerate_support:
        return found
    return [value for value in site["fn"].enumerate_support() if not torch.equal(value, site["value"])][:TRIES]
