"""The guide's answer for data in arrays: `encode(model, guide, args) -> (values, dims)`, by "site.part".

The parts of a site are those of its law q(z_l | x): "mean" and "scale", or "probs". Where the law of a site depends on
the draw of another, they are its moments under the whole guide:

    E[z_l] = E_q[m],     Var[z_l] = E_q[s² + m²] − E_q[m]²,     m, s² the moments of q(z_l | …, x) at a draw

which is an average over draws of conditional moments (Rao–Blackwell). A guide with one layer needs one pass, and gives
its parameters exactly.
"""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pathscore.diagnostics.layout import Layout, Site, describe, sample_nodes
from pathscore.diagnostics.messages import explained
from pathscore.programs.traces import lawful
from pathscore.trained.laws import parts

Named = dict[str, Tensor]

ROWS = 4096
"""Data points of one pass, where data points are independent."""


def encode(model: Callable, guide: Callable, args: tuple, draws: int) -> tuple[Named, dict[str, tuple[str, ...]]]:
    """Arrays by "site.part", and the names of their axes. draws: of guides whose later laws depend on earlier draws."""
    pieces = list(zip(*(tensor.split(ROWS) for tensor in args), strict=True)) or [()]
    layouts = [describe(model, guide, pieces[0])]
    if len(pieces) > 1 and not _by_rows(layouts[0], len(pieces[0][0])):
        pieces, layouts = [args], [describe(model, guide, args)]
    layouts += [describe(model, guide, piece) for piece in pieces[1:]]
    found = [moments(guide, layout, piece, draws) for layout, piece in zip(layouts, pieces, strict=True)]
    dims = {name: _dims(layouts[0].sites[name.rpartition(".")[0]], value) for name, value in found[0].items()}
    return {name: torch.cat([part[name] for part in found]) for name in dims}, dims


def moments(guide: Callable, layout: Layout, args: tuple, draws: int) -> Named:
    """The parts of every latent site of the guide, shaped as the layout says."""
    first, second = (one_pass(guide, layout, args) for _ in range(2))
    if all(torch.equal(first[name], second[name]) for name in first):
        return _finished({name: value.double() for name, value in _squared(first).items()}, first)
    total: Named = {}
    for _ in range(draws):
        for name, value in _squared(one_pass(guide, layout, args)).items():
            total[name] = total.get(name, 0.0) + value.double() / draws
    return _finished(total, first)


def one_pass(guide: Callable, layout: Layout, args: tuple) -> Named:
    """The parts of every latent site at one draw."""
    with explained("running the guide"):
        program = poutine.replay(lawful(guide), trace=layout.subsample)
        nodes: dict[str, Any] = sample_nodes(poutine.trace(program).get_trace(*args))
    found = {}
    for site in layout.of("latent"):
        node = nodes[site.name]
        for part, value in parts(node["fn"], node["value"]).items():
            more = value.shape[node["value"].dim() :]
            found[f"{site.name}.{part}"] = value.reshape((*site.shape, *more))
    return found


def _squared(found: Named) -> Named:
    """The parts with E[z²] in place of the scale, which may be averaged."""
    return {
        name: value.double().square() + found[name.removesuffix("scale") + "mean"].double().square()
        if name.endswith(".scale")
        else value
        for name, value in found.items()
    }


def _finished(total: Named, like: Named) -> Named:
    """The scale from E[z²], in the type of the first pass."""
    found = {}
    for name, value in total.items():
        if name.endswith(".scale"):
            value = (value - total[name.removesuffix("scale") + "mean"].square()).clamp(min=0).sqrt()
        found[name] = value.to(like[name].dtype)
    return found


def _by_rows(layout: Layout, rows: int) -> bool:
    """Whether every latent site has the data points along its first axis."""
    return all(site.plates and site.shape[0] == rows for site in layout.of("latent"))


def _dims(site: Site, value: Tensor) -> tuple[str, ...]:
    return site.dims if value.dim() == len(site.dims) else (*site.dims, f"{site.name}_class")
