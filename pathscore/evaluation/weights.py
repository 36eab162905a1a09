"""Log-weights of guide draws, one per particle and data point: what every sampled evaluation is made of.

`draw(model, guide, data, particles, depth) -> Weights`, tensors (K, B); `chunks` cuts the work into passes of constant
memory; `isolated(data, seed)` is the context in which all evaluation runs, `checked(model, guide, data)` that of many
passes. K particles, B data points of a pass.

Conventions for the programs: model(*data) and guide(*data) accept any number of data points along the first axis of
each tensor, and every sample site lies in one plate over them, for example `pyro.plate("data", len(x), dim=-1)`.
Weights are formed per data point from bare log-probabilities: a plate's subsampling scale N/B is not part of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import pyro
import torch
from pyro.infer.util import is_validation_enabled

from pathscore.errors import UsageError
from pathscore.exact.rows import Term, cuda_in_use, run_rows, site_terms, trial
from pathscore.machine.heap import keep_freed_memory
from pathscore.machine.streams import beside

Data = tuple[torch.Tensor, ...]
Program = Callable[..., object]

# Numbers of x scored in one pass, and rows of latents: small enough for the cache, large enough to fill the processor.
ROW_ELEMENTS = 2**21
ROW_LIMIT = 2**14


class Weights(NamedTuple):
    """log p(z), log p(x | z) and log q(z | x), each (K, B)."""

    log_prior: torch.Tensor
    log_likelihood: torch.Tensor
    log_q: torch.Tensor

    @property
    def log_w(self) -> torch.Tensor:
        """log w = log p(x, z) − log q(z | x), (K, B)."""
        return self.log_prior + self.log_likelihood - self.log_q


@contextmanager
def isolated(data: Data, seed: int) -> Iterator[None]:
    """No gradient, and a random stream of its own: the caller's generators are as before when it ends."""
    keep_freed_memory()
    with beside(data[0].device, "evaluation", seed), torch.no_grad():
        yield


@contextmanager
def checked(model: Program, guide: Program, data: Data) -> Iterator[int]:
    """How deep the programs nest plates; Pyro's checks, of one draw for every data point, are done once it is entered.

    The passes within go without them, as they read every number of x again. Consumes no random numbers.
    """
    depth = plate_depth(model, guide, data)
    if not is_validation_enabled():
        yield depth
        return
    with torch.random.fork_rng(cuda_in_use()):
        for piece in chunks(data, 1)[0]:
            draw(model, guide, piece, 1, depth)
    with pyro.validation_enabled(False):
        yield depth


def as_data(x: torch.Tensor | Data) -> Data:
    """One tensor or a tuple of tensors with the same first axis, as a tuple."""
    data = (x,) if isinstance(x, torch.Tensor) else tuple(x)
    if not data or any(len(t) != len(data[0]) for t in data) or len(data[0]) == 0:
        raise UsageError("evaluation needs at least one data point and tensors of the same length along the first axis")
    return data


def chunks(data: Data, particles: int) -> tuple[list[Data], list[int]]:
    """Pieces of the data and of the particle count such that one pass scores about `ROW_ELEMENTS` numbers.

    Particles come first: the encoder's work on a data point is then shared by as many of them as fit.
    """
    rows = min(max(1, ROW_ELEMENTS // max(1, data[0][0].numel())), ROW_LIMIT)
    take = min(particles, rows)
    points = max(1, rows // take)
    pieces = list(zip(*(t.split(points) for t in data), strict=True))
    counts = [min(take, particles - done) for done in range(0, particles, take)]
    return pieces, counts


def plate_depth(model: Program, guide: Program, data: Data) -> int:
    """How deep the programs nest plates, from one run on two data points."""
    try:
        return trial(model, guide, tuple(t[:2] for t in data), {})[1]
    except UsageError:
        trial(model, guide, data, {})  # the same complaint with the sizes of the data themselves
        raise


def draw(model: Program, guide: Program, data: Data, particles: int, depth: int) -> Weights:
    """Draw `particles` times from the guide for every data point and score, in one pass.

    Raises UsageError when some site lies outside a plate over the data points.
    """
    guide_trace, model_trace = run_rows(model, guide, data, {}, nullcontext(), particles, depth)
    q, p = site_terms(guide_trace, (particles,)), site_terms(model_trace, (particles,))
    latent = {term.name for term in q}
    total = torch.zeros(particles, len(data[0]), device=data[0].device)
    return Weights(
        sum_per_datum([t for t in p if t.name in latent], total),
        sum_per_datum([t for t in p if t.name not in latent], total),
        sum_per_datum(q, total),
    )


def data_plate(name: str, frames: frozenset, points: int) -> int:
    """The dimension of the plate over the data points that a site lies in."""
    dims = [f.dim for f in frames if f.size == points]
    if not dims:
        raise UsageError(
            f"site {name!r} is not in a plate over the {points} data points: wrap it in "
            'pyro.plate("data", len(x), dim=-1); figures per data point need that'
        )
    return max(dims)


def sum_per_datum(terms: list[Term] | tuple[Term, ...], total: torch.Tensor) -> torch.Tensor:
    """The masked, unscaled log-probabilities of some sites, added to a total (K, B)."""
    for term in terms:
        plate = data_plate(term.name, term.frames, total.shape[1])
        others = [d for d in range(1 - term.masked.dim(), 0) if d != plate]
        log = term.masked.sum(others) if others else term.masked
        total = total.to(log) + log
    return total
