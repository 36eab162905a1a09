"""Pictures of a comparison: `picture(comparison) -> Figure`, `save(comparison, path)`.

Left, what a draw costs against its variance, each estimator a point (hollow where it is biased; lines of equal variance
× time). Right, draws of the coordinate in which the reference is largest, one histogram an estimator, with the
reference as a line.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO, TYPE_CHECKING

import torch

from pathscore.gradients.results import Comparison, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 60


def picture(comparison: Comparison) -> Figure:
    """Both panels as one matplotlib figure, made without pyplot."""
    from matplotlib.figure import Figure

    height = max(4.0, 0.32 * len(comparison.rows) + 1.6)
    figure = Figure(figsize=(11, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    scatter(left, comparison.rows)
    histograms(right, comparison)
    if comparison.title:
        figure.suptitle(comparison.title, fontsize=11)
    return figure


def save(comparison: Comparison, path: str | Path | IO[bytes]) -> None:
    """Write the picture; the format follows the suffix, PNG for an open file."""
    picture(comparison).savefig(path, dpi=110)


def scatter(axes: Axes, rows: list[Row]) -> None:
    """Total variance against milliseconds a draw, both logarithmic; estimators without variance are left out."""
    shown = [row for row in rows if row.total_variance > 0]
    for row in shown:
        x, y = row.milliseconds, row.total_variance
        colour = "C0" if row.unbiased else "C3"
        axes.scatter(x, y, s=36, facecolors=colour if row.unbiased else "none", edgecolors=colour, zorder=3)
        axes.annotate(row.name, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="milliseconds a draw", ylabel="variance of one gradient (total)")
    axes.margins(x=0.25, y=0.1)
    _equal_products(axes, shown)
    biased = any(not row.unbiased for row in rows)
    without = [row.name for row in rows if row.total_variance == 0]
    notes = [*(["hollow: biased"] * biased), *([f"no variance: {', '.join(without)}"] if without else [])]
    axes.set_title("; ".join(["dotted: equal variance × time", *notes]), fontsize=8)


def _equal_products(axes: Axes, rows: list[Row]) -> None:
    (low, high), limits = axes.get_xlim(), axes.get_ylim()
    products = [row.total_variance * row.milliseconds for row in rows]
    if not products:
        return
    for power in range(math.floor(math.log10(min(products))), math.ceil(math.log10(max(products))) + 1):
        axes.plot([low, high], [10.0**power / low, 10.0**power / high], ":", color="0.8", linewidth=0.8, zorder=1)
    axes.set_xlim(low, high)
    axes.set_ylim(limits)


def histograms(axes: Axes, comparison: Comparison) -> None:
    """Draws of one coordinate, a ridge an estimator, its mean as a tick, and the share that the panel cuts off."""
    rows, at = comparison.rows[::-1], comparison.reference.largest
    target = comparison.reference.gradient[at].item()
    ends = torch.tensor([0.005, 0.995], dtype=torch.float64)
    widths = sorted(torch.quantile(row.draws.double(), ends).diff().item() for row in rows)
    least = max(1e-12, 1e-6 * abs(target))  # beside a target that is far away a panel needs a width
    half = max(least, 0.75 * widths[len(widths) // 2])  # the median estimator fills the panel
    low, high = target - half, target + half
    centres = low + (torch.arange(BINS) + 0.5) * (high - low) / BINS
    for level, row in enumerate(rows):
        counts = torch.histc(row.draws.double(), BINS, low, high)
        outside = 1 - counts.sum().item() / row.draws.numel()
        heights = 0.85 * counts / max(1.0, counts.max().item())
        colour = "C0" if row.unbiased else "C3"
        axes.fill_between(centres, level, level + heights, step="mid", color=colour, alpha=0.5, linewidth=0)
        axes.plot([row.mean[at].item()] * 2, [level - 0.1, level + 0.25], color=colour, linewidth=1.5)
        if outside >= 0.05:
            axes.annotate(f"{outside:.0%} outside", (high, level + 0.1), fontsize=7, ha="right", color="0.35")
    axes.axvline(target, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    axes.set(xlim=(low, high), xlabel="draws of the largest coordinate, nats per unit")
    biased = any(not row.unbiased for row in rows)
    notes = "line: reference, tick: mean; each scaled to its own peak" + "; red: biased" * biased
    axes.set_title(notes, fontsize=8)
