"""What sites a model/guide pair has: names, plates, event dimensions, supports, found from one run of each.

`describe(model, guide, args) -> Layout`. A `Site` knows the shape of its value without the axis of draws, (*plates,
*event), and the names of those dimensions; a `Layout` knows the depth of the plates and which plates every site
shares, the ones along which importance weights factorise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample

from pathscore.diagnostics.messages import explained
from pathscore.errors import UsageError
from pathscore.programs.matching import is_enumerable, mismatch, missing
from pathscore.programs.traces import lawful


@dataclass(frozen=True)
class Site:
    """One sample site; `dims` and `shape` of its value, draws left out.

    `kind`: latent, summed (a discrete latent of the model that the guide leaves out), observed, deterministic, or
    factor (`pyro.factor`: a term of log p without a value).
    """

    name: str
    kind: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    raw_shape: tuple[int, ...]  # as the program makes it, with length-1 batch dimensions
    plates: tuple[str, ...]
    support: Any
    dtype: str
    reparameterised: bool

    @property
    def event_dim(self) -> int:
        """Event dimensions, the last ones of `shape`."""
        return len(self.shape) - len(self.plates)

    @property
    def discrete(self) -> bool:
        """Whether the value is stored as integers."""
        return self.dtype.startswith("int")


@dataclass(frozen=True)
class Layout:
    """Every site of a model/guide pair, the depth of its plates, and the plates that all sites share."""

    sites: dict[str, Site]
    nesting: int
    common: dict[str, int]  # plate → its (negative) dimension, outermost first
    coords: dict[str, Any] = field(default_factory=dict)  # plate or event dimension → numpy array of labels
    subsample: poutine.Trace = field(default_factory=poutine.Trace)  # the minibatch that every chunk of draws keeps

    vectorised: bool = True  # whether the programs broadcast over a plate of draws outside their own
    observed_values: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def elements(self) -> int:
        """Site elements of one draw."""
        return sum(torch.Size(site.shape).numel() for site in self.sites.values())

    @property
    def latent_elements(self) -> int:
        """Those of latent sites alone: what a run of the guide makes."""
        return sum(torch.Size(site.shape).numel() for site in self.of("latent"))

    @property
    def plate_sizes(self) -> dict[str, int]:
        """Plate → size, for the plates of every site."""
        return {d: n for s in self.sites.values() for d, n in zip(s.plates, s.shape, strict=False)}

    @property
    def free_dim(self) -> int:
        """The first dimension left of all plates, that of draws included."""
        return -self.nesting - (2 if self.vectorised else 1)

    def of(self, kind: str) -> list[Site]:
        """The sites of one kind, in program order."""
        return [site for site in self.sites.values() if site.kind == kind]

    @property
    def subsampled(self) -> bool:
        """Whether a plate holds a random part of its rows."""
        nodes: dict[str, Any] = dict(self.subsample.nodes)
        return any(len(node["value"]) < node["fn"].size for node in nodes.values())

    @property
    def shared(self) -> list[str]:
        """Latents that several data have in common: those outside some plate of an observed site."""
        plates = {name for site in self.of("observed") for name in site.plates}
        return [site.name for site in self.of("latent") if not plates <= set(site.plates)]

    def observed(self, name: str | None = None) -> Site:
        """The observed site of that name, or the one that there is; UsageError when there are none or several."""
        found = [site for site in self.of("observed") if name in (None, site.name)]
        if len(found) != 1:
            names = ", ".join(site.name for site in found) or "none"
            raise UsageError(f"this check needs exactly one observed site, the model has {names}")
        return found[0]


def describe(
    model: Callable, guide: Callable, args: Sequence, event_dims: dict | None = None, guided: bool = True
) -> Layout:
    """Find sites, plates and supports from one run of guide and model, giving the random numbers back.

    `event_dims` names event dimensions: {"x": ("pixel",)}; others are called site_dim_0, site_dim_1, … `guided`: the
    guide has to draw the latent sites.

    Raises UsageError for a latent site that the guide does not draw and that cannot be summed out, and for sites that
    do not fit each other.
    """
    with explained("running the guide and the model once"), torch.random.fork_rng(), torch.no_grad():
        guide_trace = poutine.trace(lawful(guide)).get_trace(*args)
        model_trace = poutine.trace(poutine.replay(lawful(model), trace=guide_trace)).get_trace(*args)
    nodes = sample_nodes(model_trace)
    if not nodes:
        raise UsageError("the model has no pyro.sample site: there is nothing to diagnose")
    drawn = sample_nodes(guide_trace)
    every = [*nodes.values(), *drawn.values()]
    summed = _summed(nodes, drawn) if guided else []
    kinds = {name: "summed" if name in summed else _kind(node) for name, node in nodes.items()}
    sites = {name: _site(name, node, event_dims or {}, kinds[name]) for name, node in nodes.items()}
    nesting = max((-f.dim for node in every for f in _frames(node)), default=0)
    common = _common([node for node in every if not is_deterministic(node)])
    observed = {name: nodes[name]["value"].reshape(s.shape) for name, s in sites.items() if s.kind == "observed"}
    coords = _coords(model_trace, sites)
    subsample = _subsample_nodes(guide_trace, model_trace)
    return Layout(sites, nesting, common, coords, subsample, observed_values=observed)


def _summed(nodes: dict[str, dict], drawn: dict[str, dict]) -> list[str]:
    """The model's sites that are summed out; refuses a pair whose sites do not fit."""
    alone = missing(nodes, drawn)
    lost = [name for name in alone if not is_enumerable(nodes[name])]
    if lost:
        raise UsageError(
            f"the guide does not draw {', '.join(map(repr, lost))} of the model, so nothing is known of its posterior: "
            "add it to the guide, or observe it"
        )
    reason = mismatch(nodes, drawn, sums_out=True)
    if reason:
        raise UsageError(reason)
    return alone


def _frames(node: dict) -> list:
    """The vectorised plates around a site."""
    return [f for f in node["cond_indep_stack"] if f.vectorized]


def _common(nodes: list[dict]) -> dict[str, int]:
    """Plates around every node, matched by dimension and size: guide and model may name them differently."""
    shared = set.intersection(*({(f.dim, f.size) for f in _frames(node)} for node in nodes))
    return {f.name: f.dim for f in sorted(_frames(nodes[0]), key=lambda f: f.dim) if (f.dim, f.size) in shared}


def _subsample_nodes(*traces: poutine.Trace) -> poutine.Trace:
    """A trace of the subsampled indices alone."""
    kept = poutine.Trace()
    for trace in traces:
        for name, node in trace.nodes.items():
            if site_is_subsample(node) and name not in kept:
                kept.add_node(name, **node)
    return kept


def sample_nodes(trace: poutine.Trace) -> dict[str, dict]:
    nodes: dict[str, Any] = dict(trace.nodes)
    return {n: s for n, s in nodes.items() if s["type"] == "sample" and not site_is_subsample(s)}


def is_deterministic(node: dict) -> bool:
    return bool(node["infer"].get("_deterministic"))


def is_factor(node: dict) -> bool:
    return node["is_observed"] and node["value"].numel() == 0


def _kind(node: dict) -> str:
    if is_deterministic(node):
        return "deterministic"
    if is_factor(node):
        return "factor"
    return "observed" if node["is_observed"] else "latent"


def _site(name: str, node: dict, event_dims: dict, kind: str) -> Site:
    value, fn = node["value"], node["fn"]
    event = fn.event_dim
    plates = {f.dim: f.name for f in _frames(node)}
    batch = value.shape[: value.dim() - event]
    kept = [(plates.get(i - len(batch)), size) for i, size in enumerate(batch)]
    named = [(plate or f"{name}_batch_{i}", size) for i, (plate, size) in enumerate(kept) if plate or size > 1]
    events = event_dims.get(name, [f"{name}_dim_{i}" for i in range(event)])
    return Site(
        name=name,
        kind=kind,
        dims=(*(plate for plate, _ in named), *events),
        shape=(*(size for _, size in named), *value.shape[value.dim() - event :]),
        raw_shape=tuple(value.shape),
        plates=tuple(plate for plate, _ in named),
        support=getattr(fn, "support", None),
        dtype=_dtype(fn, value),
        reparameterised=bool(fn.has_rsample),
    )


def _dtype(fn, value: torch.Tensor) -> str:
    """int8 where the support is known to fit, int32 for counts without a bound, else the value's own dtype."""
    support: Any = getattr(fn, "support", None)
    if not getattr(support, "is_discrete", False):
        return str(value.dtype).removeprefix("torch.").replace("bool", "int8")
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    bound = getattr(support, "upper_bound", None)
    small = type(support).__name__ in ("_Boolean", "_OneHot") or (
        bound is not None and float(torch.as_tensor(bound).max()) < 128
    )
    return "int8" if small else "int32"


def _coords(trace: poutine.Trace, sites: dict[str, Site]) -> dict[str, Any]:
    """Labels: a plate's own (subsample) indices, and 0 … n − 1 for everything else."""
    lengths = {dim: size for site in sites.values() for dim, size in zip(site.dims, site.shape, strict=True)}
    coords = {dim: torch.arange(size).numpy() for dim, size in lengths.items()}
    nodes: dict[str, Any] = dict(trace.nodes)
    for name, node in nodes.items():
        if site_is_subsample(node) and name in coords and len(node["value"]) == lengths[name]:
            coords[name] = torch.as_tensor(node["value"]).cpu().numpy()
    return coords
