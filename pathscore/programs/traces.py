"""Read Pyro's traces: the sample sites of one run, and the plates that they lie in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pyro import poutine
from pyro.distributions import MaskedDistribution
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.plate_messenger import PlateMessenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from pyro.poutine.util import prune_subsample_sites

from pathscore.programs.laws import discrete_law

ROW_PLATE = "_pathscore_rows"


class DiscreteLaws(Messenger):
    """Replaces a straight-through distribution at a latent site by the discrete distribution of its values."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"]:
            msg["fn"] = discrete_law(msg["fn"])


def lawful(program: Callable) -> Any:
    """The program with the distributions that its values have, from which its densities are computed."""
    return DiscreteLaws()(program)


class PlainLaws(Messenger):
    """Gives estimators the distribution of a latent site without wrappers.

    A mask of the distribution, `fn.mask(m)`, becomes a mask of the site as with `poutine.mask`, so the term log p or
    −log q is still masked. A straight-through distribution is replaced by the distribution of its values.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"]:
            return
        fn = msg["fn"]
        if isinstance(fn, MaskedDistribution):
            msg["mask"] = fn._mask if msg["mask"] is None else fn._mask & msg["mask"]
            fn = fn.base_dist
        msg["fn"] = discrete_law(fn)


def traces(model: Callable, guide: Callable, args: tuple, kwargs: dict) -> tuple[Trace, Trace]:
    """(model trace, guide trace): one draw of the guide, and the model replayed against it."""
    guide_trace = poutine.trace(PlainLaws()(guide)).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(PlainLaws()(model), trace=guide_trace)).get_trace(*args, **kwargs)
    return model_trace, guide_trace


def sample_sites(trace: Trace) -> dict[str, Any]:
    """The sample sites of a trace by name, with the observed sites and without subsampling."""
    nodes: dict[str, Any] = dict(prune_subsample_sites(trace).nodes)
    return {name: site for name, site in nodes.items() if site["type"] == "sample"}


def latent_sites(guide_trace: Trace) -> dict[str, Any]:
    """The guide's sample sites that are drawn, in order."""
    return {name: site for name, site in sample_sites(guide_trace).items() if not site["is_observed"]}


class Plate(NamedTuple):
    """A plate as in Pyro's frame, but fast to compare, because sums over plates compare often.

    dim: None for a sequential plate, which `plates_of` leaves out.
    """

    name: str
    dim: int
    size: int
    full_size: int | None

    @classmethod
    def of(cls, frame: CondIndepStackFrame) -> Plate:
        """The plate of Pyro's frame."""
        # Pyro types dim as optional and size as an int, but size may be a tensor.
        return cls(frame.name, frame.dim, frame.size, frame.full_size)  # type: ignore[arg-type]


def plates_of(site: Any) -> frozenset[Plate]:
    """The vectorised plates that a site lies in, without the row plate."""
    return frozenset(Plate.of(f) for f in site["cond_indep_stack"] if f.vectorized and f.name != ROW_PLATE)


class RowPlate(PlateMessenger):
    """The plate of rows. It is never subsampled, so it draws and makes no indices."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__(ROW_PLATE, rows, dim=dim)

    @staticmethod
    # Pyro declares that this returns a tensor of indices; None means that there is no subsample.
    def _subsample(name: str, size: int, *_: Any, **__: Any) -> tuple[int, int, None]:  # type: ignore[override]
        return size, size, None


class Unconditioned(UnconditionMessenger):
    """The program without its observations; what `pyro.deterministic` computes stays computed.

    Pyro writes a computed value as an observed point mass, all of whose dimensions belong to the event. Drawn instead,
    the plates around it would expand it once more.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if not (msg["infer"] or {}).get("_deterministic"):
            super()._pyro_sample(msg)


def identity(program: Callable) -> tuple[int, int]:
    """A key that distinguishes two living programs. A bound method needs two ids: each access makes a new object."""
    return id(getattr(program, "__self__", program)), id(getattr(program, "__func__", program))
