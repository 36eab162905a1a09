"""Log-probabilities of every joint state of a program's latent sites, in one vectorised pass of guide and model.

`tabulate(model, guide, *args) -> Table` runs both programs, unchanged, inside one plate of S rows, outside all of
their own plates. Row r gives joint state r to every latent site. Data points inside `pyro.plate` are conditionally
independent, so one row serves all of them: S is the number of states of *one* data point's local latents times that of
the global latents. Afterwards the row axis is unfolded to one axis per latent site, in the guide's order. Every
tensor of a `Table` has shape (n_1, …, n_L, *plates).
"""

import math
from dataclasses import dataclass

import torch
from pyro.poutine.messenger import Messenger

from pathscore.errors import UsageError
from pathscore.exact.quadrature import elements, rule_for, unwrap
from pathscore.exact.rows import Term, plates, run_rows, site_terms, trial, unfold
from pathscore.exact.rule import Rule

STATE_LIMIT = 2**14
NODES = 64
"""Default number of quadrature nodes of a continuous event element."""


@dataclass(frozen=True)
class Latent:
    """One latent site of the guide: its nodes, the shape of its independent event elements, and its plates."""

    name: str
    rule: Rule
    elements: torch.Size
    frames: frozenset

    @property
    def size(self) -> int:
        """Number of joint states of the site's event elements."""
        return self.rule.size ** math.prod(self.elements)


@dataclass(frozen=True)
class Table:
    """Both programs at every joint state. All tensors have shape (n_1, …, n_L, *plates).

    log_weight[s]: log of q's weight for each node of site s; for a discrete site, its log-probability. Sums over axis s
        with these weights are expectations under q.
    log_measure[s]: log of the weights that turn a sum over nodes into an integral; 0 for a discrete site.
    values[s]: (n_1, …, n_L, *plates, *event).
    """

    latents: tuple[Latent, ...]
    log_weight: dict[str, torch.Tensor]
    log_measure: dict[str, torch.Tensor]
    values: dict[str, torch.Tensor]
    log_q: tuple[Term, ...]
    log_p: tuple[Term, ...]

    def own(self, frames: frozenset, tensor: torch.Tensor, name: str) -> torch.Tensor:
        """The tensor with the axes of latents outside `frames` cut to length 1. It must not vary along them.

        Raises UsageError where it does. A site outside a plate that depends on a latent inside it couples the plate's
        data points, whose joint states would have to be enumerated together.
        """
        index = tuple(slice(None) if s.frames <= frames else slice(0, 1) for s in self.latents)
        small = tensor[index]
        if small.numel() < tensor.numel():
            a, b = small.detach().expand_as(tensor), tensor.detach()
            if not torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True):
                inner = [s.name for s in self.latents if not s.frames <= frames]
                raise UsageError(
                    f"site {name!r} lies outside a plate but depends on a latent site inside it (one of "
                    f"{inner}): this couples data points; move {name!r} into the plate (plates of model and guide are "
                    "the same if they have the same name)"
                )
        return small


class _PlaceNodes(Messenger):
    """Gives every latent site of the guide its nodes: one joint state per row."""

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


def _node_indices(latents: tuple[Latent, ...], depth: int) -> dict[str, torch.Tensor]:
    """Index of the node of each event element in each row: name → (S, 1, …, 1, *elements), mixed-radix digits."""
    digits, rows, stride = {}, torch.arange(math.prod(s.size for s in latents)), 1
    for s in reversed(latents):  # the first site varies slowest, so that reshape(n_1, …, n_L) unfolds the rows
        count = math.prod(s.elements)
        steps = stride * s.rule.size ** torch.arange(count - 1, -1, -1)
        digits[s.name] = (rows[:, None] // steps % s.rule.size).reshape(-1, *(1,) * depth, *s.elements)
        stride *= s.size
    return digits


def _latents(sites, nodes: int) -> tuple[Latent, ...]:
    return tuple(
        Latent(name, rule_for(name, site["fn"], nodes, site["prior"]), elements(site["fn"]), plates(site))
        for name, site in sites
    )


def latents_of(model, guide, args: tuple, kwargs: dict, nodes: int) -> tuple[Latent, ...]:
    """The guide's latent sites with their rules, from one run that restores the random generators."""
    return _latents(trial(model, guide, args, kwargs)[0], nodes)


def count_states(model, guide, *args, nodes: int = NODES, **kwargs) -> int:
    """How many joint states `tabulate` would score."""
    return math.prod(s.size for s in latents_of(model, guide, args, kwargs, nodes))


def _refuse_too_many(latents: tuple[Latent, ...]) -> None:
    total = math.prod(s.size for s in latents)
    if total > STATE_LIMIT:
        worst = max(latents, key=lambda s: s.size)
        raise UsageError(
            f"site {worst.name!r} has {worst.size} joint states and the program {total}: the limit of exact "
            f"enumeration is {STATE_LIMIT}; make the latent smaller or estimate by sampling"
        )


def tabulate(model, guide, *args, max_plate_nesting: int | None = None, nodes: int = NODES, **kwargs) -> Table:
    """Score every joint state of the guide's latent sites under guide and model, differentiable in the parameters.

    A continuous site takes the nodes of a quadrature rule: `nodes` of them per event element. `max_plate_nesting` is
    found by a trial run if it is not given. Other keyword arguments are passed to model and guide.

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
        log_weight={name: unfold(log, sizes) for name, log in placed.log_weight.items()},
        log_measure={name: unfold(log, sizes) for name, log in placed.log_measure.items()},
        values={s.name: unfold(guide_trace.nodes[s.name]["value"], sizes) for s in latents},
        log_q=site_terms(guide_trace, sizes),
        log_p=site_terms(model_trace, sizes),
    )
