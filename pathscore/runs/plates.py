"""Whether the plates of a program fit what its entry says of the data: `refuse_plates(…)`, before the first step.

Where each data point has latent variables of its own, every site must be in a plate over the data points. Where they
share some (`Program.whole`), a batch is a subsample of the plate: its log-likelihood must be scaled to the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from pathscore.data import Arguments
from pathscore.errors import UsageError
from pathscore.programs.traces import sample_sites, traces
from pathscore.programs.untouched import rehearsal


def refuse_plates(
    model: Callable, guide: Callable, batch: Arguments, *, points: int, whole: bool, batch_size: int
) -> None:
    """Raise UsageError for a site in no plate over the data points, or for a likelihood that is not scaled to them.

    batch: a few rows of the `points` data points. whole: whether the data points share latent variables.
    A plate is one over the data points if its length follows that of the batch.
    """
    if not batch or len(batch[0]) < 2 or points <= len(batch[0]) or (whole and batch_size >= points):
        return
    fewer = _sites(model, guide, tuple(part[:-1] for part in batch))
    for name, site, plates in _over_the_data(_sites(model, guide, batch), fewer, len(batch[0])):
        if whole and site["is_observed"] and plates and _unscaled(site, plates):
            raise UsageError(
                f"site '{name}' is in plate '{plates[0].name}' of the length of a batch, so its log-likelihood is not "
                f"scaled to the {points} data points of the training set: write pyro.plate('{plates[0].name}', "
                f"{points}, subsample_size=len(x)), or train with --batch-size {points}"
            )
        if not whole and not plates:
            raise UsageError(
                f"site '{name}' is in no plate over the data points: if all data points share it, declare "
                f"Program(make, whole=True) and scale the data plate to the data set, pyro.plate('data', {points}, "
                "subsample_size=len(x)); if each has its own, draw it inside pyro.plate('data', len(x), dim=-1)"
            )


def _sites(model: Callable, guide: Callable, args: Arguments) -> dict[str, Any]:
    with rehearsal(model, guide), torch.no_grad():
        model_trace, guide_trace = traces(model, guide, args, {})
    return {**sample_sites(guide_trace), **sample_sites(model_trace)}


def _over_the_data(more: dict[str, Any], fewer: dict[str, Any], rows: int) -> Iterator[tuple[str, Any, list[Any]]]:
    """Name, site and the plates over the data points, for each site of both runs."""
    for name, site in more.items():
        if name in fewer:
            sizes = {frame.name: frame.size for frame in fewer[name]["cond_indep_stack"]}
            frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
            yield name, site, [f for f in frames if (f.size, sizes.get(f.name)) == (rows, rows - 1)]


def _unscaled(site: Any, plates: list[Any]) -> bool:
    scale = torch.as_tensor(site["scale"])
    return all(frame.full_size in (None, frame.size) for frame in plates) and bool((scale == 1).all())
