"""Run any Pyro model and guide on many draws at once.

`prepare(model, guide, args) -> Layout`, then `draw(model, guide, layout, draws, args) -> Draws`. Both programs,
unedited, are wrapped in one plate of S draws outside all of their own plates; programs that don't broadcast over it
are run once a draw instead. Values come back as (S, *plates, *event), log-probabilities as (S, *common): `common`
are the plates shared by every site, so a program whose latents are local to the data has one importance weight per
draw and data point, and a program with a global latent has one per draw. A discrete model site that the guide leaves
out is summed out of log p, and its values come from its posterior given the draw and the data (summing.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyro
import torch
from pyro import poutine

from pathscore.diagnostics.layout import Layout, describe, is_factor, sample_nodes
from pathscore.diagnostics.messages import explained
from pathscore.diagnostics.scoring import (
    Nodes,
    Values,
    align,
    common_free_scale,
    log_likelihoods,
    over_common,
    per_plate,
    total_log_prob,
)
from pathscore.diagnostics.seeding import seeded
from pathscore.diagnostics.summing import drawn, enumerated_trace, summed_out
from pathscore.errors import UsageError
from pathscore.programs.broadcasting import obstacle
from pathscore.programs.traces import Unconditioned, lawful

DRAWS_PLATE = "_draws"
"""The plate of draws; outside every plate of the programs."""

PASS_ELEMENTS = 2**21
"""Site elements of one pass (8 MB in float32); hidden layers and log-probabilities take a few times that."""


@dataclass(frozen=True)
class Draws:
    """S draws of the guide, scored: latent and computed sites (S, *plates, *event), log p, log q (S, *common)."""

    values: Values
    log_p: torch.Tensor
    log_q: torch.Tensor
    log_likelihood: Values  # observed site → (S, *plates)
    extra: Values

    @property
    def log_weight(self) -> torch.Tensor:
        """log p(x, z) − log q(z | x), (S, *common)."""
        return self.log_p - self.log_q


def prepare(
    model: Callable, guide: Callable, args: Sequence, event_dims: dict | None = None, guided: bool = True
) -> Layout:
    """The layout of a pair, and whether it broadcasts over an outer plate of draws (tried once with two)."""
    layout = describe(model, guide, args, event_dims, guided)
    if obstacle(lawful(model), lawful(guide), tuple(args), {}, layout.nesting) is not None:
        return replace(layout, vectorised=False)
    try:
        with torch.random.fork_rng(), torch.no_grad():
            draw(model, guide, layout, 2, args)
    except Exception:  # whatever a program that isn't written for it raises; one draw at a time has just worked
        return replace(layout, vectorised=False)
    return layout


def draw(
    model: Callable,
    guide: Callable,
    layout: Layout,
    draws: int,
    args: Sequence,
    extra: Callable[[Nodes, Nodes], Values] | None = None,
) -> Draws:
    """S draws from the guide, replayed and scored through the model.

    `extra(model nodes, guide nodes)` may return more tensors, with S first, while the traces are at hand.
    """

    def once(part: slice, rows: Callable) -> dict[tuple[str, str], torch.Tensor]:
        guide_trace = poutine.trace(rows(poutine.replay(lawful(guide), trace=layout.subsample))).get_trace(*args)
        replayed = rows(poutine.replay(poutine.replay(lawful(model), trace=guide_trace), trace=layout.subsample))
        summed = [site.name for site in layout.of("summed")]
        completed = drawn(replayed, summed, layout.free_dim) if summed else replayed
        model_nodes = sample_nodes(poutine.trace(completed).get_trace(*args))
        guide_nodes = sample_nodes(guide_trace)
        found = _score(layout, part.stop - part.start, model_nodes, guide_nodes)
        if summed:
            trace = enumerated_trace(replayed, summed, layout.free_dim, args)
            found |= _sum_out(layout, part.stop - part.start, trace, model_nodes)
        return {**found, **_tagged("extra", extra(model_nodes, guide_nodes) if extra else {})}

    with explained("drawing from the guide and scoring the draws"):
        found = _over_draws(layout, draws, layout.elements, once)
    return Draws(
        _untagged("value", found),
        found["log", "p"],
        found["log", "q"],
        _untagged("likelihood", found),
        _untagged("extra", found),
    )


def _unchanged(program: Callable) -> Callable:
    return program


def _over_draws(layout: Layout, draws: int, elements: int, once: Callable[[slice, Callable], dict]) -> dict:
    """`once(slice of draws, rows)` in passes of bounded size; a draw a pass where it must be.

    rows: puts a program into the plate of draws, outside all of its handlers.

    Results go where the first pass has made room for all of them. Kept one by one, they would settle in the holes that
    a pass leaves behind, none of which then fits the next pass: the heap would grow by a pass each time.
    """
    step = max(1, PASS_ELEMENTS // max(1, elements)) if layout.vectorised else 1
    found: dict = {}
    for start in range(0, draws, step):
        part = slice(start, min(start + step, draws))
        count = part.stop - start
        plate = pyro.plate(DRAWS_PLATE, count, dim=-layout.nesting - 1) if layout.vectorised else _unchanged
        values = once(part, plate)
        if count == draws:
            return values
        for key, value in values.items():
            rows = len(value) // count  # more than one where a program that is run draw by draw leaves its plates flat
            if key not in found:
                found[key] = value.new_empty((draws * rows, *value.shape[1:]))
            found[key][start * rows : part.stop * rows] = value
    return found


def _tagged(tag: str, values: Values) -> dict[tuple[str, str], torch.Tensor]:
    return {(tag, name): value for name, value in values.items()}


def _untagged(tag: str, found: dict[tuple[str, str], torch.Tensor]) -> Values:
    return {name: value for (kind, name), value in found.items() if kind == tag}


def _score(layout: Layout, draws: int, model_nodes: Nodes, guide_nodes: Nodes) -> dict[tuple[str, str], torch.Tensor]:
    of_guide = {n: node for n, node in guide_nodes.items() if not node["is_observed"] or is_factor(node)}
    kept = [site for kind in ("latent", "summed", "deterministic") for site in layout.of(kind)]
    values = {site.name: align(site, model_nodes[site.name]["value"], draws) for site in kept}
    return {
        **_tagged("value", values),
        ("log", "p"): total_log_prob(model_nodes, layout, draws),
        ("log", "q"): total_log_prob(of_guide, layout, draws),
        **_tagged("likelihood", log_likelihoods(layout, model_nodes, draws)),
    }


def _sum_out(layout: Layout, draws: int, trace: poutine.Trace, nodes: Nodes) -> dict[tuple[str, str], torch.Tensor]:
    """log p, and the likelihoods of observed sites, with the sites summed out that the guide leaves out.

    An observed site's likelihood is its own only where it is the only one that depends on them in its plates.
    """
    moved, left = summed_out(trace)
    total = total_log_prob({n: node for n, node in nodes.items() if n not in moved}, layout, draws)
    found = {}
    for names, logs in left:
        scale = common_free_scale(nodes[sorted(names)[0]], layout)
        total = total + over_common(logs * scale, layout, draws)
        observed = [s for s in layout.of("observed") if s.name in names]
        if len(observed) == 1 and logs.numel() in (
            n := torch.Size(observed[0].shape[: len(observed[0].plates)]).numel(),
            n * draws,
        ):
            found["likelihood", observed[0].name] = per_plate(observed[0], logs, draws)
    return {("log", "p"): total, **found}


def simulate(
    model: Callable,
    layout: Layout,
    draws: int,
    args: Sequence,
    values: Values | None = None,
    keep: Sequence[str] | None = None,
) -> Values:
    """Sites of the model (all, or those in `keep`) with its observations drawn anew: name → (S, *plates, *event).

    Latents take `values` (S, *plates, *event) where given (posterior predictive), else come from the prior.
    """

    def collect(nodes: Nodes, count: int) -> Values:
        names = nodes if keep is None else keep
        return {name: align(layout.sites[name], nodes[name]["value"], count) for name in names}

    with explained("simulating data from the model"):
        return replay(Unconditioned()(model), layout, draws, args, values or {}, collect)


def guide_values(guide: Callable, layout: Layout, draws: int, args: Sequence) -> Values:
    """Draws of the guide alone, not scored: the model's latent sites, name → (S, *plates, *event).

    Raises UsageError for a guide that lacks one of them.
    """

    def once(part: slice, rows: Callable) -> Values:
        program = rows(poutine.replay(lawful(guide), trace=layout.subsample))
        nodes = sample_nodes(poutine.trace(program).get_trace(*args))
        missing = [s.name for s in layout.of("latent") if s.name not in nodes]
        if missing:
            raise UsageError(f"the guide has no site {', '.join(map(repr, missing))}: this check needs it there")
        return {s.name: align(s, nodes[s.name]["value"], part.stop - part.start) for s in layout.of("latent")}

    with explained("drawing from the guide"):
        return _over_draws(layout, draws, layout.latent_elements, once)


def depends_on(guide: Callable, model: Callable, layout: Layout, args: tuple, other: tuple) -> bool:
    """Whether the guide answers to its data: the same random numbers give another draw or density for other data.

    A guide with parameters of its own for each data point (Pyro's autoguides) doesn't; it knows these data alone.
    """
    found = []
    for arguments in (args, other):
        with seeded(0):
            one = draw(model, guide, layout, 1, arguments)
            found.append([one.log_q, *(one.values[site.name] for site in layout.of("latent"))])
    return not all(map(torch.equal, *found))


def replay(
    model: Callable,
    layout: Layout,
    draws: int,
    args: Sequence,
    values: Values,
    collect: Callable[[Nodes, int], Values],
    elements: int | None = None,
) -> Values:
    """Run a program at latent values (S, *plates, *event), keep `collect(nodes, S)`; `elements`: of one draw."""

    def once(part: slice, rows: Callable) -> Values:
        placed = _place(layout, {name: value[part] for name, value in values.items()})
        program = rows(poutine.replay(poutine.replay(lawful(model), trace=placed), trace=layout.subsample))
        return collect(sample_nodes(poutine.trace(program).get_trace(*args)), part.stop - part.start)

    return _over_draws(layout, draws, elements or layout.elements, once)


def _place(layout: Layout, values: Values) -> poutine.Trace:
    """A trace that holds given values, shaped to be replayed inside the plate of draws."""
    trace = poutine.Trace()
    for name, value in values.items():
        site = layout.sites[name]
        pad = (1,) * (layout.nesting - len(site.raw_shape) + site.event_dim)
        shape = (len(value), *pad, *site.raw_shape) if layout.vectorised else site.raw_shape
        trace.add_node(name, type="sample", name=name, value=value.reshape(shape), is_observed=False, infer={})
    return trace
