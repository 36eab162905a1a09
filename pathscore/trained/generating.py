"""Data from a trained model: reconstructions `reconstruct(model, guide, args, draws)`, new data `generate(…)`.

Both return the observed sites by name, in the shapes (*plates, *event) of the program.
"""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pathscore.diagnostics.layout import describe, sample_nodes
from pathscore.diagnostics.messages import explained
from pathscore.programs.traces import Unconditioned, lawful
from pathscore.trained.laws import expected

Sites = dict[str, tuple[Tensor, tuple[str, ...]]]
"""Observed site → its values, and the names of their axes."""


def reconstruct(model: Callable, guide: Callable, args: tuple, draws: int) -> Sites:
    """E_q[E[x | z]] of each observed site, an average over `draws` draws z ~ q(z | x)."""
    layout = describe(model, guide, args)
    total: dict[str, Any] = {}
    with explained("reconstructing the data"):
        for _ in range(draws):
            drawn = poutine.trace(poutine.replay(lawful(guide), trace=layout.subsample)).get_trace(*args)
            program = poutine.replay(poutine.replay(lawful(model), trace=drawn), trace=layout.subsample)
            nodes = sample_nodes(poutine.trace(program).get_trace(*args))
            for site in layout.of("observed"):
                mean = expected(nodes[site.name]["fn"], nodes[site.name]["value"])
                total[site.name] = total.get(site.name, 0.0) + mean / draws
    return _shaped(layout, total)


def generate(model: Callable, guide: Callable, args: tuple, mean: bool) -> Sites:
    """Draws of the observed sites from the model, one for each row of args, or E[x | z] of the drawn z with `mean`.

    Observed values in args are not used; the other arguments are the covariates of the new data.
    """
    layout = describe(model, guide, args)
    with explained("drawing from the model"):
        program = poutine.replay(Unconditioned()(lawful(model)), trace=layout.subsample)
        nodes: dict[str, Any] = sample_nodes(poutine.trace(program).get_trace(*args))
    found = {site.name: nodes[site.name] for site in layout.of("observed")}
    return _shaped(layout, {n: expected(s["fn"], s["value"]) if mean else s["value"] for n, s in found.items()})


def _shaped(layout: Any, values: dict[str, Tensor]) -> Sites:
    found = {}
    for name, value in values.items():
        site = layout.sites[name]
        more = value.numel() // max(1, torch.Size(site.shape).numel())
        shape, dims = (site.shape, site.dims) if more == 1 else ((*site.shape, more), (*site.dims, f"{name}_class"))
        found[name] = value.reshape(shape), dims
    return found
