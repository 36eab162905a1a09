"""Rows of the lab as text: `as_text(rows, notes) -> str`, one line per estimator, and below it how it was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pathscore.gradients.records import Row

HEADER = ("estimator", "", "max |z|", "p", "variance", "× best", "SNR", "cosine", "evals", "ms", "var × time")
WHAT = {
    "sites": "the latent sites' own parameters",
    "weights": "the guide's weights",
}


def as_text(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The table and its notes, for a terminal."""
    return "\n".join([grid(rows), "", *notes])


def grid(rows: Sequence[Row], own: str | None = None) -> str:
    """The table alone. own: the name of the row that a run trained with, which is marked."""
    marks = {own: f"{own} (this run)"}
    cells = [HEADER, *((marks.get(row.name, row.name), *_cells(row)) for row in rows)]
    shown = [i for i, column in enumerate(zip(*cells[1:], strict=True)) if set(column) not in ({"—"}, {""})]
    cells = [tuple(line[i] for i in shown) for line in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = [str.ljust if i < 2 else str.rjust for i in shown]
    return "\n".join(
        "  ".join(side(c, w) for side, c, w in zip(sides, line, widths, strict=True)).rstrip() for line in cells
    )


def number(value: float | None, digits: int = 3) -> str:
    """A number in few characters; "—" for one that does not exist."""
    if value is None or math.isnan(value):
        return "—"
    if math.isinf(value):
        return "∞"
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        "" if row.unbiased else "biased",
        number(row.max_abs_z, 2),
        number(row.hotelling_p, 2),
        number(row.total_variance),
        number(row.relative_variance),
        number(row.snr),
        number(row.cosine, 2),
        str(row.evaluations),
        number(row.milliseconds, 2),
        number(row.relative_cost),
    )
