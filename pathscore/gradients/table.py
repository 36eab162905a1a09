"""The comparison as text: `as_text(comparison) -> str`, one estimator a line, and below it how it was measured."""

from __future__ import annotations

import math

from pathscore.gradients.results import MAX_Z, Comparison, Row

HEADER = ("estimator", "", "max |z|", "p", "variance", "× best", "SNR", "cosine", "evals", "ms", "var × time")
WHAT = {
    "sites": "gradient by the parameters of the latent sites' own distributions",
    "weights": "gradient by the guide's weights",
}


def as_text(comparison: Comparison) -> str:
    """The table and its notes, for a terminal."""
    return "\n".join([grid(comparison), "", *notes(comparison)])


def grid(comparison: Comparison) -> str:
    """The table alone."""
    cells = [HEADER, *(_cells(row) for row in comparison.rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADER))]
    lines = ["  ".join(_align(i, c, w) for i, (c, w) in enumerate(zip(line, widths, strict=True))) for line in cells]
    return "\n".join(line.rstrip() for line in lines)


def notes(comparison: Comparison) -> list[str]:
    """What the numbers mean, in lines."""
    rows = comparison.rows
    warmed = f"; learned parts trained for {comparison.warmup} steps, then frozen" if comparison.warmup else ""
    worst = max(row.detectable_bias for row in rows)
    lines = [
        f"{comparison.replicates:,} draws each of the {WHAT[comparison.of]}, --elbo {comparison.elbo}{warmed}",
        f"held against: {comparison.reference.source}",
        f"|z| > {MAX_Z} finds a bias of {worst:.2g} in one coordinate in half of all cases, smaller ones where the "
        "variance is smaller; p: Hotelling's T² over all coordinates",
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


def _align(column: int, cell: str, width: int) -> str:
    return cell.ljust(width) if column < 2 else cell.rjust(width)
