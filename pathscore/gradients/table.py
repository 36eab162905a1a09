"""The comparison as text: `as_text(comparison) -> str`, one estimator a line, and below it how it was measured."""

from __future__ import annotations

import math

from pathscore.gradients.results import MAX_Z, Comparison, Row

HEADER = ("estimator", "", "max |z|", "p", "variance", "× best", "SNR", "cosine", "evals", "ms", "var × time")
WHAT = {
    "sites": "the latent sites' own parameters",
    "weights": "the guide's weights",
}


def as_text(comparison: Comparison) -> str:
    """The table and its notes, for a terminal."""
    return "\n".join([grid(comparison), "", *notes(comparison)])


def grid(comparison: Comparison) -> str:
    """The table alone."""
    cells = [HEADER, *(_cells(row) for row in comparison.rows)]
    shown = [i for i, column in enumerate(zip(*cells[1:], strict=True)) if set(column) not in ({"—"}, {""})]
    cells = [tuple(line[i] for i in shown) for line in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = [str.ljust if i < 2 else str.rjust for i in shown]
    return "\n".join(
        "  ".join(side(c, w) for side, c, w in zip(sides, line, widths, strict=True)).rstrip() for line in cells
    )


def notes(comparison: Comparison) -> list[str]:
    """What the numbers mean, in lines."""
    rows = comparison.rows
    learned = f"; learned parts trained for {comparison.warmup} steps, then frozen" if comparison.warmup else ""
    worst = max(row.detectable_bias for row in rows)
    lines = [
        f"{comparison.replicates:,} gradients each (--elbo {comparison.elbo}) by {WHAT[comparison.of]}{learned}",
        f"held against: {comparison.reference.source}",
        f"|z| > {MAX_Z} is bias; a bias of {worst:.2g} in the noisiest coordinate would be found in half of all cases",
    ]
    if refused := ", ".join(comparison.refused):
        lines.append(f"not legal here: {refused}")
    return lines


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
        row.name,
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
