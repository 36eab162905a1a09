"""Cut a job of S draws for N rows into rectangles that fit in memory.

`Blocks(model, guide, layout, args, elements).of(draws)` yields `Block`s in order. Rows are only cut when one draw of
all rows is too much, and only along a plate that is as long as the data: each cut calls the programs with a slice of
their arguments.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pathscore.diagnostics.layout import Layout, describe
from pathscore.diagnostics.rows import cut, row_plate
from pathscore.errors import UsageError

BLOCK_ELEMENTS = 2**22
"""Site elements computed at once (16 MB in float32); hidden layers and log-probabilities take a few times that."""


@dataclass(frozen=True)
class Block:
    """One rectangle: a run of draws of a run of rows, with the program arguments and the layout of these rows."""

    draws: slice
    rows: slice
    plate: str | None  # the plate that `rows` cuts
    layout: Layout
    args: tuple
    chain: int = 0

    @property
    def count(self) -> int:
        """Draws in this block."""
        return self.draws.stop - self.draws.start

    def first(self, draws: int) -> "Block | None":
        """The part of this block among the first `draws` draws, if any."""
        stop = min(self.draws.stop, draws)
        return replace(self, draws=slice(self.draws.start, stop)) if stop > self.draws.start else None

    def index(self, dims: tuple[str, ...]) -> tuple:
        """Where a (draws, *dims) block lies in a (chain, draw, *dims) array."""
        return (self.chain, self.draws, *(self.rows if dim == self.plate else slice(None) for dim in dims))


@dataclass(frozen=True)
class Blocks:
    """The rectangles of one job; `elements` bounds the site elements of a block."""

    model: Callable
    guide: Callable
    layout: Layout
    args: tuple
    elements: int

    def of(self, draws: int) -> Iterator[Block]:
        """Blocks that cover `draws` draws of all rows."""
        for plate, rows, layout, args in self._row_blocks():
            step = max(1, self.elements // layout.elements)
            for start in range(0, draws, step):
                yield Block(slice(start, min(start + step, draws)), rows, plate, layout, args)

    def _row_blocks(self) -> Iterator[tuple[str | None, slice, Layout, tuple]]:
        plate, total = row_plate(self.layout, self.args)
        if plate is None or self.layout.elements <= self.elements:
            yield None, slice(None), self.layout, self.args
            return
        step = max(1, total * self.elements // self.layout.elements)
        for start in range(0, total, step):
            rows = slice(start, min(start + step, total))
            args = cut(self.args, rows)
            yield plate, rows, self._describe(plate, args, rows), args

    def _describe(self, plate: str, args: tuple, rows: slice) -> Layout:
        layout = replace(describe(self.model, self.guide, args), vectorised=self.layout.vectorised)
        if layout.plate_sizes.get(plate) != rows.stop - rows.start:
            raise UsageError(
                f"plate {plate!r} keeps its size when the program is called with fewer rows: size it by "
                "len(x), or raise block_elements so that all rows fit at once"
            )
        return layout
