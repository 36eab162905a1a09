"""Every joint state of a program's latent sites, scored in one vectorised pass of guide and model.

`tabulate(model, guide, *args) -> Table` wraps both programs, unedited, in one plate of S rows outside all of
their own plates: row r puts joint state r at every latent site. Data points inside `pyro.plate` are
conditionally independent, so one row serves all of them at once: S counts the states of *one* datum's local
latents times those of the global ones. Afterwards the row axis is unfolded to one axis per latent site, in the
guide's order: every tensor of a `Table` has shape (n_1, …, n_L, *plates).
"""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites, site_is_subsample

from pathscore.errors import UsageError
from pathscore.exact.quadrature import Rule, elements, rule_for, unwrap

STATE_LIMIT = 2**14
_ROWS = "_joint_states"


@dataclass(frozen=True)
class Latent:
    """One latent site of the guide: its nodes, the shape of its independent event elements, and its plates."""

    name: str
    rule: Rule
    elements: torch.Size
    frames: frozenset

    @property
    def size(self) -> int:
        """Joint states of the site's event elements."""
        return self.rule.size ** math.prod(self.elements)


@dataclass(frozen=True)
class Term:
    """log_prob of one sample site: scaled and masked as Pyro does, without the scale, and bare."""

    name: str
    frames: frozenset
    scaled: torch.Tensor
    masked: torch.Tensor
    bare: torch.Tensor


@dataclass(frozen=True)
class Table:
    """Both programs at every joint state. All tensors have shape (n_1, …, n_L, *plates).

    `log_weight[s]` is the log of the weight that q gives to the nodes of site s (its log-probability, for a
    discrete site), so that sums over axis s with these weights are expectations under q; `log_measure[s]` turns
    a sum over nodes into an integral (0 for a discrete site). `values[s]` has shape (n_1, …, n_L, *plates,
    *event).
    """

    latents: tuple[Latent, ...]
    log_weight: dict[str, torch.Tensor]
    log_measure: dict[str, torch.Tensor]
    values: dict[str, torch.Tensor]
    log_q: tuple[Term, ...]
    log_p: tuple[Term, ...]

    def own(self, frames: frozenset, tensor: torch.Tensor, name: str) -> torch.Tensor:
        """The tensor with the axes of latents outside `frames` cut to length 1: it must not vary along them.

        Raises UsageError where it does: a site outside a plate that depends on a latent inside it couples the
        plate's data points, and their joint states would have to be enumerated together.
        """
        index = tuple(slice(None) if s.frames <= frames else slice(0, 1) for s in self.latents)
        small = tensor[index]
        if small.numel() < tensor.numel():
            a, b = small.detach().expand_as(tensor), tensor.detach()
            if not torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True):
                inner = [s.name for s in self.latents if not s.frames <= frames]
                raise UsageError(f"site {name!r} depends on a latent site in a plate that it lies outside of (one of "
                                 f"{inner}): this couples data points; move {name!r} into the plate")
        return small


class _PlaceNodes(Messenger):
    """Gives every latent site of the guide its nodes, one joint state per row."""

    def __init__(self, latents: tuple[Latent, ...], depth: int):
        super().__init__()
        self.latents = {s.name: s for s in latents}
        self.depth = depth
        self.index = _node_indices(latents, depth)
        self.log_weight: dict[str, torch.Tensor] = {}
        self.log_measure: dict[str, torch.Tensor] = {}

    def _pyro_sample(self, msg):
        latent = self.latents.get(msg["name"])
        if latent is None or msg["is_observed"]:
            return
        fn = msg["fn"]
        value, log_weight, log_measure = latent.rule.place(unwrap(fn), self.index[latent.name])
        dims = list(range(-len(latent.elements), 0))
        for table, log in ((self.log_weight, log_weight), (self.log_measure, log_measure)):
            table[latent.name] = log.sum(dims).expand(fn.batch_shape) if dims else log.expand(fn.batch_shape)
        msg["value"] = value.expand(fn.batch_shape + fn.event_shape)
        msg["done"] = True


class GiveValues(Messenger):
    """Gives the named sites their values, broadcast to the shape that the site has inside the row plate."""

    def __init__(self, values: dict[str, torch.Tensor]):
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg):
        if msg["name"] in self.values and not msg["is_observed"]:
            fn = msg["fn"]
            msg["value"] = self.values[msg["name"]].expand(fn.batch_shape + fn.event_shape)
            msg["done"] = True


def _node_indices(latents: tuple[Latent, ...], depth: int) -> dict[str, torch.Tensor]:
    """Which node each event element takes in each row: name → (S, 1, …, 1, *elements), mixed-radix digits."""
    digits, rows, stride = {}, torch.arange(math.prod(s.size for s in latents)), 1
    for s in reversed(latents):  # the first site varies slowest, so that reshape(n_1, …, n_L) unfolds the rows
        count = math.prod(s.elements)
        steps = stride * s.rule.size ** torch.arange(count - 1, -1, -1)
        digits[s.name] = (rows[:, None] // steps % s.rule.size).reshape(-1, *(1,) * depth, *s.elements)
        stride *= s.size
    return digits


def plates(site) -> frozenset:
    """The vectorised plates that a site lies in."""
    return frozenset(f for f in site["cond_indep_stack"] if f.vectorized and f.name != _ROWS)


def _sites(trace) -> list[tuple[str, Any]]:
    """The sample sites of a trace, without those that draw a plate's subsample."""
    return [(name, site) for name, site in trace.nodes.items()
            if site["type"] == "sample" and not site_is_subsample(site)]


def trial(model, guide, args, kwargs) -> tuple[list[tuple[str, Any]], int]:
    """The guide's latent sites (name, site) and the depth of plates, from a run whose random draws are given back."""
    with torch.random.fork_rng(), torch.no_grad():
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    for name, site in _sites(model_trace):
        if not site["is_observed"] and name not in guide_trace:
            raise UsageError(f"latent site {name!r} of the model is missing from the guide: add it there")
    frames = union(plates(site) for trace in (guide_trace, model_trace) for _, site in _sites(trace))
    latents = [(name, site) for name, site in _sites(guide_trace) if not site["is_observed"]]
    return latents, max((-f.dim for f in frames), default=0)


def run_rows(model, guide, args, kwargs, placed: AbstractContextManager, count: int, depth: int):
    """Traces of guide and model inside a plate of `count` rows; the handler `placed` may give the latent values."""
    rows = pyro.plate(_ROWS, count, dim=-depth - 1)
    # Both handlers stand outside the row plate: it does not broadcast a site that already has its value.
    with placed, rows:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    with poutine.replay(trace=guide_trace), rows:
        model_trace = poutine.trace(model).get_trace(*args, **kwargs)
    return guide_trace, model_trace


def _latents(sites, nodes: int) -> tuple[Latent, ...]:
    return tuple(Latent(name, rule_for(name, site["fn"], nodes), elements(site["fn"]), plates(site))
                 for name, site in sites)


def count_states(model, guide, *args, nodes: int = 64, **kwargs) -> int:
    """How many joint states `tabulate` would score."""
    return math.prod(s.size for s in _latents(trial(model, guide, args, kwargs)[0], nodes))


def _refuse_too_many(latents: tuple[Latent, ...]) -> None:
    total = math.prod(s.size for s in latents)
    if total > STATE_LIMIT:
        worst = max(latents, key=lambda s: s.size)
        raise UsageError(f"site {worst.name!r} has {worst.size} joint states and the program {total}: exact "
                         f"enumeration stops at {STATE_LIMIT}; make the latent smaller or estimate by sampling")


def site_terms(trace, sizes: tuple[int, ...]) -> tuple[Term, ...]:
    """The log-probabilities of a row trace, the row axis unfolded to `sizes`."""
    trace = prune_subsample_sites(trace)
    trace.compute_log_prob()
    found = []
    for name, site in _sites(trace):
        bare = site["unscaled_log_prob"]
        logs = (site["log_prob"], scale_and_mask(bare, mask=site["mask"]), bare)
        found.append(Term(name, plates(site), *(_unfold(log, sizes) for log in logs)))
    return tuple(found)


def _unfold(rows: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """(S, *rest) → (n_1, …, n_L, *rest)."""
    return rows.reshape(*sizes, *rows.shape[1:])


def tabulate(model, guide, *args, max_plate_nesting: int | None = None, nodes: int = 64, **kwargs) -> Table:
    """Score every joint state of the guide's latent sites under guide and model, with the graph to the parameters.

    Continuous sites take the nodes of a quadrature rule, `nodes` of them per event element. `max_plate_nesting`
    is found by a trial run where not given. Other keyword arguments go to model and guide.

    Raises UsageError when the program has more than 2^14 joint states, a site without a finite support or a
    quadrature rule, or a model site that the guide lacks.
    """
    sites, depth = trial(model, guide, args, kwargs)
    latents = _latents(sites, nodes)
    _refuse_too_many(latents)
    depth = depth if max_plate_nesting is None else max(depth, max_plate_nesting)
    sizes = tuple(s.size for s in latents)
    placed = _PlaceNodes(latents, depth)
    guide_trace, model_trace = run_rows(model, guide, args, kwargs, placed, math.prod(sizes), depth)
    return Table(
        latents=latents,
        log_weight={name: _unfold(log, sizes) for name, log in placed.log_weight.items()},
        log_measure={name: _unfold(log, sizes) for name, log in placed.log_measure.items()},
        values={s.name: _unfold(guide_trace.nodes[s.name]["value"], sizes) for s in latents},
        log_q=site_terms(guide_trace, sizes),
        log_p=site_terms(model_trace, sizes),
    )


def union(sets) -> frozenset:
    """The union of frozensets, empty for none."""
    return reduce(frozenset.union, sets, frozenset())
