"""Reading Pyro's traces: the sample sites of one run, and the plates they sit in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pyro import poutine
from pyro.distributions import MaskedDistribution
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.plate_messenger import PlateMessenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites

from pathscore.programs.laws import discrete_law

ROW_PLATE = "_pathscore_rows"


class DiscreteLaws(Messenger):
    """At latent sites, a straight-through law gives way to the discrete law whose values it draws."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"]:
            msg["fn"] = discrete_law(msg["fn"])


def lawful(program: Callable) -> Any:
    """The program with the laws that its values have: what its densities are computed from."""
    return DiscreteLaws()(program)


class PlainLaws(Messenger):
    """Shows estimators the law itself of a latent site.

    A mask of the distribution, `fn.mask(m)`, is put on the site, as `poutine.mask` does: the term log p or −log q is
    masked as before. Straight-through laws are those of their values.
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
    """(model trace, guide trace): one draw of the guide, and the model run against it."""
    guide_trace = poutine.trace(PlainLaws()(guide)).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(PlainLaws()(model), trace=guide_trace)).get_trace(*args, **kwargs)
    return model_trace, guide_trace


def sample_sites(trace: Trace) -> dict[str, Any]:
    """The sample sites of a trace by name, observed ones too, subsampling left out."""
    nodes: dict[str, Any] = dict(prune_subsample_sites(trace).nodes)
    return {name: site for name, site in nodes.items() if site["type"] == "sample"}


def latent_sites(guide_trace: Trace) -> dict[str, Any]:
    """The guide's sample sites that are drawn, in order."""
    return {name: site for name, site in sample_sites(guide_trace).items() if not site["is_observed"]}


class Plate(NamedTuple):
    """A plate: what Pyro's frame says of it, and quick to compare, as sums over plates do all the time.

    dim: None for a sequential one, which `plates_of` leaves out.
    """

    name: str
    dim: int
    size: int
    full_size: int | None

    @classmethod
    def of(cls, frame: CondIndepStackFrame) -> Plate:
        """The plate of Pyro's frame."""
        # Pyro says size is an int; it may be a tensor, whatever its type says.
        return cls(frame.name, frame.dim, frame.size, frame.full_size)  # type: ignore[arg-type]


def plates_of(site: Any) -> frozenset[Plate]:
    """The vectorised plates a site sits in (the row plate left out)."""
    return frozenset(Plate.of(f) for f in site["cond_indep_stack"] if f.vectorized and f.name != ROW_PLATE)


class RowPlate(PlateMessenger):
    """The plate of rows: all of them, so nothing is drawn and no index is made."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__(ROW_PLATE, rows, dim=dim)

    # No indices are drawn, whatever its type says.
    @staticmethod
    def _subsample(name: str, size: int, *_: Any, **__: Any) -> tuple[int, int, None]:  # type: ignore[override]
        return size, size, None


def identity(program: Callable) -> tuple[int, int]:
    """What tells two programs apart for as long as both live; a bound method is a new object each time it is read."""
    return id(getattr(program, "__self__", program)), id(getattr(program, "__func__", program))
