"""Log importance weights of guide draws, one per particle and data point. Every evaluation by sampling uses them.

`draw(model, guide, data, particles, depth) -> Weights`, tensors (K, B). `chunks` cuts the work into passes of constant
memory. All evaluation runs in the context `isolated(data, seed)`; `checked(model, guide, data)` is a context for many
passes. K particles, B data points of a pass.

Conventions for the programs: model(*data) and guide(*data) accept any number of data points along the first axis of
each tensor, and every sample site lies in one plate over them, for example `pyro.plate("data", len(x), dim=-1)`.
The weights of a data point do not contain a plate's subsampling scale N/B.
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

# Elements of x, and rows of latents, in one pass: small enough for the cache, large enough to use the processor fully.
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
    """No gradients, and a separate random stream. The caller's generators are restored at the end."""
    keep_freed_memory()
    with beside(data[0].device, "evaluation", seed), torch.no_grad():
        yield


@contextmanager
def checked(model: Program, guide: Program, data: Data) -> Iterator[int]:
    """Run Pyro's checks once, on one draw for every data point, and return the depth of nested plates.

    Passes inside the block run without the checks, which would read all of x again. Consumes no random numbers.
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
    """A tuple of tensors with the same first axis, from one tensor or such a tuple."""
    data = (x,) if isinstance(x, torch.Tensor) else tuple(x)
    other = next((part for part in data if not isinstance(part, torch.Tensor) or part.dim() == 0), None)
    if other is not None:
        raise UsageError(
            f"evaluation takes tensors with one row for each data point, got {other!r}: bind it with partial"
        )
    if not data or any(len(t) != len(data[0]) for t in data) or len(data[0]) == 0:
        raise UsageError("evaluation needs at least one data point and tensors of the same length along the first axis")
    return data


def chunks(data: Data, particles: int) -> tuple[list[Data], list[int]]:
    """Pieces of the data and of the particle count, so that one pass evaluates about `ROW_ELEMENTS` elements.

    A pass takes as many particles as fit before it takes more data points, because they share the encoder's work.
    """
    rows = min(max(1, ROW_ELEMENTS // max(1, data[0][0].numel())), ROW_LIMIT)
    take = min(particles, rows)
    points = max(1, rows // take)
    pieces = list(zip(*(t.split(points) for t in data), strict=True))
    counts = [min(take, particles - done) for done in range(0, particles, take)]
    return pieces, counts


def plate_depth(model: Program, guide: Program, data: Data) -> int:
    """The depth of nested plates, from one run on two data points."""
    try:
        return trial(model, guide, tuple(t[:2] for t in data), {})[1]
    except UsageError:
        trial(model, guide, data, {})  # the same complaint with the sizes of the data themselves
        raise


def draw(model: Program, guide: Program, data: Data, particles: int, depth: int) -> Weights:
    """Draw `particles` times from the guide for every data point and compute the log-probabilities, in one pass.

    Raises UsageError when a site lies outside the plate over the data points.
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
            f"site {name!r} is not in a plate over the {points} data points, as figures per data point need: draw it "
            'inside pyro.plate("data", len(x), dim=-1), or use evaluate_whole where all data points share it'
        )
    return max(dims)


def sum_per_datum(terms: list[Term] | tuple[Term, ...], total: torch.Tensor) -> torch.Tensor:
    """Add the masked, unscaled log-probabilities of some sites to a total (K, B)."""
    for term in terms:
        plate = data_plate(term.name, term.frames, total.shape[1])
        others = [d for d in range(1 - term.masked.dim(), 0) if d != plate]
        log = term.masked.sum(others) if others else term.masked
        total = total.to(log) + log
    return total
