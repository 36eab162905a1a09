"""Rows of the lab as a table: `as_text(rows, notes)` for a terminal, `as_html` for notebooks, `frame(rows)`.

One line for each estimator. The variance has its standard error beside it. Where too few gradients were drawn for a
test of bias, |z| is not shown.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from pathscore.gradients.records import ENOUGH, Row

HEADER = (
    *("estimator", "", "max |z|", "p", "variance", "± s.e.", "× best", "SNR", "cosine", "evals", "ms"),
    "var × time",
)
TEXT = 2
"""Columns at the left that hold text."""

WHAT = {
    "sites": "the latent sites' own parameters",
    "weights": "the guide's weights",
    "all": "all parameters of model and guide",
}


def frame(rows: Sequence[Row]) -> Any:
    """A pandas DataFrame, indexed by estimator: every number of the rows, unrounded."""
    import pandas

    table = pandas.DataFrame([row.as_dict() for row in rows]).set_index("name")
    return table.drop(columns="variance_by_parameter").rename_axis("estimator")


def as_text(rows: Sequence[Row], notes: Sequence[str], own: str | None = None) -> str:
    """The table and its notes, for a terminal."""
    return "\n".join([grid(rows, own), "", *notes])


def as_html(rows: Sequence[Row], notes: Sequence[str], own: str | None = None) -> str:
    """The table and its notes, for a notebook."""
    header, *body = shown(rows, own)
    sides = ["left" if i < TEXT else "right" for i in range(len(header))]
    lines = [
        "".join(f'<{tag} style="text-align:{s}">{html.escape(c)}</{tag}>' for c, s in zip(line, sides, strict=True))
        for tag, line in [("th", header), *(("td", line) for line in body)]
    ]
    below = "<br>".join(map(html.escape, notes))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table><p>{below}</p>"


def grid(rows: Sequence[Row], own: str | None = None) -> str:
    """The table alone. own: the name of the row that a run trained with, which is marked."""
    cells = shown(rows, own)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = [str.ljust if i < TEXT else str.rjust for i in range(len(widths))]
    return "\n".join(
        "  ".join(side(c, w) for side, c, w in zip(sides, line, widths, strict=True)).rstrip() for line in cells
    )


def shown(rows: Sequence[Row], own: str | None = None) -> list[tuple[str, ...]]:
    """Header and lines, without columns that say nothing in every row; the first two stay."""
    marks = {own: f"{own} (this run)"}
    cells = [HEADER, *((marks.get(row.name, row.name), *_cells(row)) for row in rows)]
    columns = list(enumerate(zip(*cells[1:], strict=True)))
    kept = [i for i, column in columns if i < TEXT or not set(column) <= {"—", "", "too few"}]
    return [tuple(line[i] for i in kept) for line in cells]


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
        number(row.max_abs_z, 2) if row.replicates >= ENOUGH else "too few",
        number(row.hotelling_p, 2) if row.replicates >= ENOUGH else "—",
        number(row.total_variance),
        number(row.variance_se, 2),
        number(row.relative_variance),
        number(row.snr),
        number(row.cosine, 2),
        str(row.evaluations),
        number(row.milliseconds, 2),
        number(row.relative_cost),
    )
