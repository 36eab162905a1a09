"""A pair of programs run for many latent values at once: guide and model inside one plate of rows.

`trial` finds the latent sites and the depth of the plates, `run_rows` runs the programs, `site_terms` computes the
log-probabilities. The programs are not changed. A row is one value of every latent site, which is drawn or given by a
handler. The row plate has dimension −depth − 1, outside all plates of the programs. R rows.
"""

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
from pathscore.programs.traces import lawful
from pathscore.programs.untouched import untouched

_ROWS = "_rows"


@dataclass(frozen=True)
class Term:
    """log_prob of one sample site: scaled and masked as in Pyro, without the scale, and without scale and mask."""

    name: str
    frames: frozenset
    scaled: torch.Tensor
    masked: torch.Tensor
    bare: torch.Tensor


class GiveValues(Messenger):
    """Sets the named sites to values that are broadcast to the shape of the site inside the row plate."""

    def __init__(self, values: dict[str, torch.Tensor]):
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg):
        if msg["name"] in self.values and not msg["is_observed"]:
            fn = msg["fn"]
            msg["value"] = self.values[msg["name"]].expand(fn.batch_shape + fn.event_shape)
            msg["done"] = True


def plates(site) -> frozenset:
    """The vectorised plates that a site lies in."""
    return frozenset(f for f in site["cond_indep_stack"] if f.vectorized and f.name != _ROWS)


def _sites(trace) -> list[tuple[str, Any]]:
    """The sample sites of a trace, without those that draw a plate's subsample."""
    return [
        (name, site) for name, site in trace.nodes.items() if site["type"] == "sample" and not site_is_subsample(site)
    ]


def cuda_in_use() -> list[int]:
    """The current CUDA device if this process uses one: `fork_rng` has to restore its generator too."""
    return [torch.cuda.current_device()] if torch.cuda.is_initialized() else []


def trial(model, guide, args, kwargs) -> tuple[list[tuple[str, Any]], int]:
    """The guide's latent sites (name, site) and the depth of plates, from a run that restores the random generators.

    site["prior"] is the model's distribution at this site, None where it has none.
    """
    with untouched(model, guide), torch.random.fork_rng(cuda_in_use()), torch.no_grad():
        guide_trace = poutine.trace(lawful(guide)).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(lawful(model), trace=guide_trace)).get_trace(*args, **kwargs)
    for name, site in _sites(model_trace):
        if not site["is_observed"] and name not in guide_trace:
            raise UsageError(f"latent site {name!r} of the model is missing from the guide: add it there")
    everything = _sites(guide_trace) + _sites(model_trace)
    for name, site in everything:
        _refuse_stray_dimensions(name, plates(site), site["fn"].batch_shape)
    frames = union(plates(site) for _, site in everything)
    priors = {name: site["fn"] for name, site in _sites(model_trace)}
    found = [(name, site) for name, site in _sites(guide_trace) if not site["is_observed"]]
    latents = [(name, {**site, "prior": priors.get(name)}) for name, site in found]
    return latents, max((-f.dim for f in frames), default=0)


def run_rows(model, guide, args, kwargs, placed: AbstractContextManager, count: int, depth: int):
    """Traces of guide and model inside a plate of `count` rows. The handler `placed` may set the latent values."""
    rows = pyro.plate(_ROWS, count, dim=-depth - 1)
    try:
        # Both handlers are outside the row plate, because a plate does not broadcast a site that has a value already.
        with placed, rows:
            guide_trace = poutine.trace(lawful(guide)).get_trace(*args, **kwargs)
        with poutine.replay(trace=guide_trace), rows:
            model_trace = poutine.trace(lawful(model)).get_trace(*args, **kwargs)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # the programs ran without rows, in `trial`
        first = str(error).partition("\n")[0]
        raise UsageError(
            "the program does not broadcast over a leading dimension of rows, as vectorised particles "
            f"need (write (…, B, D), no fixed shapes): {first}"
        ) from error
    return guide_trace, model_trace


def site_terms(trace, sizes: tuple[int, ...]) -> tuple[Term, ...]:
    """The log-probabilities of a row trace with the row axis unfolded to `sizes`."""
    trace = prune_subsample_sites(trace)
    trace.compute_log_prob()
    found = []
    for name, site in _sites(trace):
        bare = site["unscaled_log_prob"]
        _refuse_stray_dimensions(name, plates(site), bare.shape[1:])
        logs = (site["log_prob"], scale_and_mask(bare, mask=site["mask"]), bare)
        found.append(Term(name, plates(site), *(unfold(log, sizes) for log in logs)))
    return tuple(found)


def _refuse_stray_dimensions(name: str, frames: frozenset, shape: tuple[int, ...]) -> None:
    dims = {f.dim for f in frames}
    stray = {d: n for d, n in zip(range(-len(shape), 0), shape, strict=True) if n != 1 and d not in dims}
    if stray:
        several = len(stray) > 1
        sizes = " and ".join(map(str, stray.values()))
        plates = " and ".join(f"pyro.plate(…, {n}, dim={d})" for d, n in stray.items())
        raise UsageError(
            f"site {name!r} has {'batch dimensions of sizes' if several else 'a batch dimension of size'} {sizes} that "
            f"{'are no plates' if several else 'is no plate'}: wrap {'them' if several else 'it'} in {plates} or make "
            f"{'them' if several else 'it'} part of the event (.to_event)"
        )


def unfold(rows: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """(R, *rest) → (*sizes, *rest)."""
    return rows.reshape(*sizes, *rows.shape[1:])


def union(sets) -> frozenset:
    """The union of frozensets, empty for none."""
    return reduce(frozenset.union, sets, frozenset())
