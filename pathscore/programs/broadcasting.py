"""Can a pair of programs be run for several rows in one pass? `obstacle(model, guide, args, kwargs, nesting)`.

Rows (particles, counterfactual values, replicates) are one plate outside all others. A program that is right for one
row need not be written for many: `locs[a]` and `X @ w` mix the rows with its own dimensions, with an error or without.
The pair is run once with a few rows, and the densities of every row are compared with those of a pass of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace

from pathscore.programs.traces import PlainLaws, RowPlate, latent_sites, plates_of, sample_sites, traces
from pathscore.programs.untouched import rehearsal

Pair = tuple[Trace, Trace]

TOLERANCE = 1e-3
"""How far, relatively, the log-probabilities of a row may lie from those of a pass of its own: far above rounding, and
far below what another element of a parameter makes."""

TRIES = 8
"""Most draws of the rows: a draw in which a site has one value in all rows does not show what depends on it."""

REMEDY = (
    "write the program so that it broadcasts over a leading dimension, as (x * w).sum(-1) and Vindex(locs)[..., a] do"
)


def obstacle(model: Callable, guide: Callable, args: tuple, kwargs: dict, nesting: int) -> str | None:
    """What keeps a pair from being run for several rows in one pass, with the site; None where it can.

    nesting: plates of the programs. Random numbers and what the programs keep stay as they were.
    """
    hidden = poutine.block(hide_types=["sample", "observe"])  # from whatever watches the step
    with rehearsal(model, guide), torch.no_grad(), hidden:
        return _Trial(model, guide, args, kwargs, nesting).reason()


class BroadcastingWarning(UserWarning):
    """A program is run once for each row, because it is not written for several in one pass; the message says why."""


def warn_of_passes(reason: str) -> None:
    """Say that a program runs pass by pass."""
    warnings.warn(
        "the program runs once for each particle and counterfactual row (a Python loop: slower, the same estimate): "
        f"{reason}; {REMEDY}",
        BroadcastingWarning,
        stacklevel=2,
    )


class _Trial:
    """One run of a pair with a few rows, and runs of single rows at the same values to compare it with."""

    def __init__(self, model: Callable, guide: Callable, args: tuple, kwargs: dict, nesting: int) -> None:
        self.model, self.guide, self.args, self.kwargs, self.nesting = model, guide, args, kwargs, nesting
        single = traces(model, guide, args, kwargs)
        self.shapes = {n: s["value"].shape for trace in single for n, s in sample_sites(trace).items()}
        sizes = {n for shape in self.shapes.values() for n in shape}
        # The size of no dimension, so that nothing fits by chance.
        self.rows = next(n for n in range(2, len(sizes) + 3) if n not in sizes)
        self.together: Pair = (Trace(), Trace())

    def reason(self) -> str | None:
        met: list[str] = []
        try:
            for _ in range(TRIES):
                self.together = self._together(met)
                found = self._wrong_shape() or self._differs()
                if found or self._tells_rows_apart():
                    return found
            return None
        except Exception as error:  # whatever a program raises that is not written for rows
            text = " ".join(str(error).split())[:160] or type(error).__name__
            return f"after site {met[-1]!r}: {text}" if met else text

    def _tells_rows_apart(self) -> bool:
        """Whether every discrete site has different values in different rows; few draws of a coin may be all alike."""
        values = {n: s for n, s in latent_sites(self.together[1]).items() if not s["fn"].has_rsample}
        rowed = [s["value"] for n, s in values.items() if s["value"].numel() > self.shapes[n].numel()]
        return all(bool((value != value[:1]).any()) for value in rowed)

    def _together(self, met: list[str]) -> Pair:
        def rowed(program: Callable) -> Callable:
            return PlainLaws()(RowPlate(self.rows, dim=-self.nesting - 1)(program))

        with _Names(met):
            guide_trace = poutine.trace(rowed(self.guide)).get_trace(*self.args, **self.kwargs)
            replayed = poutine.replay(rowed(self.model), trace=guide_trace)
            return poutine.trace(replayed).get_trace(*self.args, **self.kwargs), guide_trace

    def _wrong_shape(self) -> str | None:
        for trace in self.together:
            trace.compute_log_prob()
            for name, site in sample_sites(trace).items():
                reason = wrong_shape(name, site, tuple(site["log_prob"].shape), self.rows, self.nesting)
                if reason:
                    return reason
        return None

    def _differs(self) -> str | None:
        """The site whose log-probability is another one in a pass of its own; a program's own noise does not count."""
        for row in (0, self.rows - 1):
            alone = self._alone(row)
            found = _apart(self.together, alone, row, self.nesting)
            if found is not None and _apart(self._alone(row), alone, None, self.nesting) is None:
                return (
                    f"site {found!r} has other log-probabilities in a pass of {self.rows} rows than in one of its own"
                )
        return None

    def _alone(self, row: int) -> Pair:
        """The pair run by itself at the values of one row."""
        held = Trace()
        for trace in self.together:
            nodes: dict[str, Any] = dict(trace.nodes)
            for name, site in nodes.items():
                if site["type"] == "sample" and not site["is_observed"] and name not in held:
                    held.add_node(name, **{**site, "value": self._of_row(name, site["value"], row)})
        found = traces(
            poutine.replay(self.model, trace=held), poutine.replay(self.guide, trace=held), self.args, self.kwargs
        )
        for trace in found:
            trace.compute_log_prob()
        return found

    def _of_row(self, name: str, value: Any, row: int) -> Any:
        shape = self.shapes.get(name)
        if shape is None:  # the indices of a plate
            return value
        return (value if value.numel() == shape.numel() else value[row]).reshape(shape)


class _Names(Messenger):
    """Notes the sites of a program as it runs."""

    def __init__(self, met: list[str]) -> None:
        super().__init__()
        self.met = met

    def _pyro_post_sample(self, msg: Any) -> None:
        self.met.append(msg["name"])


def wrong_shape(name: str, site: Any, shape: tuple[int, ...], rows: int, nesting: int) -> str | None:
    """What is wrong with the shape of log-probabilities in a pass of so many rows: anything that is no plate."""
    sizes = {frame.dim: frame.size for frame in plates_of(site)} | {-nesting - 1: rows}
    if all(n in (1, sizes.get(dim, 1)) for dim, n in zip(range(-len(shape), 0), shape, strict=True)):
        return None
    expected = tuple(sizes.get(dim, 1) for dim in range(-nesting - 1, 0))
    return f"site {name!r} has log-probabilities of shape {shape} in a pass of {rows} rows, expected {expected}"


def _apart(pair: Pair, other: Pair, row: int | None, nesting: int) -> str | None:
    """The first site whose log-probability differs between two runs; `row`: of the first, None where it has none."""
    for trace, alone in zip(pair, other, strict=True):
        nodes = sample_sites(alone)
        for name, site in sample_sites(trace).items():
            if name not in nodes:
                return name
            a, b = site["log_prob"].double(), nodes[name]["log_prob"].double()
            if row is not None and a.ndim > nesting:
                a = a[min(row, len(a) - 1)]
            if not torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
                return name
    return None
