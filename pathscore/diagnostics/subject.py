"""What is diagnosed, and what a diagnosis hands back to the page.

A diagnostic is a function `section(subject) -> Section`: it reads a `Subject` (programs, held-out data, draws
already in ArviZ's schema) and returns verdicts, tables, pictures and the numbers for `diagnostics.json`. N data
points, S draws.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pathscore.diagnostics.layout import Layout, describe
from pathscore.diagnostics.programs import prepare
from pathscore.diagnostics.rows import cut, row_plate
from pathscore.diagnostics.verdicts import Verdict
from pathscore.errors import PathscoreError, UsageError, in_short, suggest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pathscore.diagnostics.palette import Palette


@dataclass(frozen=True)
class Effort:
    """How much work a diagnosis does; every figure on the page says which of these it used."""

    points: int = 1000  # held-out data points
    draws: int = 500  # draws of the guide for each, kept in posterior.nc
    predictive_draws: int = 100  # draws of x, kept in posterior.nc
    check_draws: int = 99  # draws of x for each held-out summary
    replicates: int = 1000  # simulated data sets of the calibration check
    rank_draws: int = 99  # draws of the guide for each of them
    gap_points: int = 48  # data points whose variational parameters are re-optimised
    gap_steps: int = 250
    chain_points: int = 3  # data points given to NUTS, 0 for none
    chain_draws: int = 150
    seed: int = 0

    def with_(self, **changes: Any) -> "Effort":
        """A copy with some figures changed. Raises UsageError for an unknown name or a negative number."""
        known = [f.name for f in fields(self)]
        for name, value in changes.items():
            if name not in known:
                raise UsageError(f"unknown diagnosis setting {name!r}: {suggest(name, known)}")
            if value < 0 or (value == 0 and name not in ("chain_points", "gap_points", "seed", "predictive_draws")):
                raise UsageError(f"{name}={value}: must be at least 1")
        return replace(self, **changes)


@dataclass(frozen=True)
class Subject:
    """A trained pair and held-out data, with draws of the guide in ArviZ's schema (see `to_arviz`)."""

    model: Callable
    guide: Callable
    args: tuple
    tree: Any  # xarray.DataTree
    effort: Effort = field(default_factory=Effort)
    labels: np.ndarray | None = None
    image_shape: tuple[int, ...] | None = None  # (C, H, W) of one data point
    flags: frozenset[str] | None = None  # those of a run of the command line; None for any other program

    @cached_property
    def layout(self) -> Layout:
        """Sites and plates of the pair on the held-out data."""
        return prepare(self.model, self.guide, self.args)

    @property
    def log_weight(self) -> np.ndarray:
        """log p(x, z) − log q(z | x) of the stored draws, (S, *common)."""
        return self.tree["sample_stats"]["log_weight"].values[0]

    @property
    def discrete(self) -> bool:
        """Whether every latent is discrete."""
        return all(site.discrete for site in self.layout.of("latent"))

    @property
    def points(self) -> int:
        """Data points with latents of their own: elements of the plates that every site shares; 1 without them."""
        return math.prod(self.layout.plate_sizes[name] for name in self.layout.common)

    @property
    def joint(self) -> bool:
        """Whether there is one importance weight for all the data: a latent is global, or nothing is in a plate."""
        return not self.layout.common

    @property
    def point_sites(self) -> list[str]:
        """Continuous latents that are the same in every draw: the guide gives a point for them, no distribution."""
        draws = self.tree["posterior"].to_dataset()
        sites = [s.name for s in self.layout.of("latent") if not s.discrete and draws.sizes["draw"] > 1]
        few = {name: draws[name].isel(chain=0, draw=slice(0, 10)).values for name in sites}
        return [name for name, values in few.items() if (values == values[:1]).all()]

    def first(self, count: int) -> tuple:
        """The program arguments for the first `count` data points, or for all where they have no rows to cut.

        Data that share a latent are never cut: the posterior is that of all of them. Raises UsageError for a program
        that can't be called with fewer rows.
        """
        plate, total = row_plate(self.layout, self.args)
        if plate is None or count >= total:
            return self.args
        args = cut(self.args, slice(0, count))
        try:
            sites = describe(self.model, self.guide, args).sites.values()
        except PathscoreError:
            raise
        except Exception as error:  # whatever a program raises that was written for one number of rows
            raise UsageError(self._uncut(plate, count, in_short(error, 80))) from error
        if {n for s in sites for dim, n in zip(s.plates, s.shape, strict=False) if dim == plate} != {count}:
            raise UsageError(self._uncut(plate, count, "it keeps its size"))
        return args

    def _uncut(self, plate: str, count: int, reason: str) -> str:
        return (
            f"the program can't be called with {count} of the {self.points} rows of plate {plate!r} ({reason}): size "
            "its plates by len(x), or examine no more rows than this check takes"
        )


@dataclass(frozen=True)
class Picture:
    """A figure to be drawn in any palette; `alt` says in words what is seen."""

    name: str
    title: str
    alt: str
    draw: "Callable[[Palette], Axes]"


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    folded: bool = False  # shown when its caption is clicked

    @property
    def wide(self) -> bool:
        """Whether it needs the width of the page: many columns, or long names over them."""
        return len(self.header) > 5 or sum(map(len, self.header)) > 100


@dataclass(frozen=True)
class Section:
    """One part of the page: what one diagnostic found."""

    name: str
    title: str
    intro: str
    verdicts: Sequence[Verdict] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    numbers: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    code: str = ""
    pointwise: dict[str, np.ndarray] = field(default_factory=dict)  # name → a number for each data point, (N,)
