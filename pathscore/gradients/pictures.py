"""Pictures of a comparison: `picture(comparison) -> Figure`, and its two panels `trade_off` and `intervals`.

Both panels read the plain values of `Comparison.as_dict()`, which gradients.json holds, in any palette. Filled:
unbiased; hollow: biased. The names of the estimators stand beside the panel, never on each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from pathscore.diagnostics.palette import LIGHT, PANEL, Palette, above, axes, figure_of, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = 9.0
"""Points between two names."""

Table = Mapping[str, Any]
"""`Comparison.as_dict()`, or what was read from gradients.json."""


def picture(comparison: Any) -> Figure:
    """Both panels of a `Comparison` as one matplotlib figure, made without pyplot."""
    figure, (left, right) = panels(LIGHT, 1, 2, (11, _height(comparison.rows)))
    table = comparison.as_dict()
    trade_off(LIGHT, table, left)
    intervals(LIGHT, table, right)
    if comparison.title:
        figure.suptitle(comparison.title, fontsize=11, color=LIGHT.text)
    return figure


def save(comparison: Any, path: str | Path | IO[bytes]) -> None:
    """Write the picture; the format follows the suffix, PNG for an open file."""
    picture(comparison).savefig(path, dpi=110)


def _height(rows: Sequence[Any]) -> float:
    """Inches that leave a line for each name."""
    return max(PANEL[1], 0.19 * len(rows) + 0.9)


def trade_off(palette: Palette, table: Table, ax: Axes | None = None) -> Axes:
    """Total variance ± 2 standard errors against milliseconds a draw, both logarithmic.

    Dotted lines: equal variance × time. Estimators without variance are left out, and named below the panel.
    """
    rows = [row for row in table["estimators"] if (row.get("total_variance") or 0) > 0]
    ax = axes(palette, ax, (PANEL[0], _height(table["estimators"])))
    ax.set(xscale="log", yscale="log", ylabel="variance of one gradient (total)")
    without = [short(row["name"]) for row in table["estimators"] if row.get("total_variance") == 0]
    ax.set_xlabel("milliseconds a draw" + (f"\nno variance: {', '.join(without)}" if without else ""))
    for row in rows:
        x, y, error = row["milliseconds"], row["total_variance"], 2 * (row.get("variance_se") or 0.0)
        ax.plot([x, x], [max(y - error, y / 2), y + error], color=_colour(palette, row), linewidth=1)
        ax.scatter(x, y, s=24, zorder=3, **_marker(palette, row))
    _explain(palette, ax, rows)
    if rows:
        _limits(ax, rows)
        _equal_products(palette, ax, rows)
        _names(palette, ax, rows)
    return ax


def _colour(palette: Palette, row: Mapping[str, Any]) -> str:
    return palette.main if row["unbiased"] else palette.second


def _marker(palette: Palette, row: Mapping[str, Any]) -> dict[str, Any]:
    colour = _colour(palette, row)
    return {"facecolors": colour if row["unbiased"] else palette.background, "edgecolors": colour}


def _explain(palette: Palette, ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """What hollow means, where a row is biased."""
    if any(not row["unbiased"] for row in rows):
        for name, unbiased in (("unbiased", True), ("biased", False)):
            ax.scatter([], [], s=24, label=name, **_marker(palette, {"unbiased": unbiased}))
        above(ax, palette)


def _limits(ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """A fifth of a decade around the points."""
    for key, set_limits in (("milliseconds", ax.set_xlim), ("total_variance", ax.set_ylim)):
        values = [row[key] for row in rows]
        set_limits(min(values) / 1.6, max(values) * 1.6)
    ax.xaxis.set_major_locator(FixedLocator(ticks(*ax.get_xlim())))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


LONGEST = 20
"""Characters of a name in a picture; the table has it whole."""


def short(name: str) -> str:
    """A row's name, cut where it would leave no room for what is drawn."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis, at least three where they can be had, few enough not to collide."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    found: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        found = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(found) > 2:
            break
    return found


def _equal_products(palette: Palette, ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    x = np.array(ax.get_xlim())
    products = [row["total_variance"] * row["milliseconds"] for row in rows]
    for power in range(math.floor(math.log10(min(products))), math.ceil(math.log10(max(products))) + 1):
        ax.plot(x, 10.0**power / x, ":", color=palette.faint, linewidth=0.8, zorder=1, scalex=False, scaley=False)


def _names(palette: Palette, ax: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Names in a column at the right, from the smallest variance up, each with a line to its point."""
    low, high = (math.log10(limit) for limit in ax.get_ylim())
    ordered = sorted(rows, key=lambda row: row["total_variance"])
    wanted = [(math.log10(row["total_variance"]) - low) / (high - low) for row in ordered]
    gap = LINE / (72 * 0.75 * figure_of(ax).get_figheight())
    for row, y in zip(ordered, spread_out(wanted, gap), strict=True):
        ax.annotate(
            short(row["name"]),
            (row["milliseconds"], row["total_variance"]),
            xytext=(1.03, y),
            textcoords="axes fraction",
            fontsize=8,
            va="center",
            color=palette.text,
            arrowprops={"arrowstyle": "-", "color": palette.faint, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3},
        )


def spread_out(wanted: Sequence[float], gap: float) -> list[float]:
    """Places near the wanted ones, which ascend, at least `gap` apart; the column stays about where it was wanted."""
    from sklearn.isotonic import isotonic_regression

    steps = gap * np.arange(len(wanted))  # places minus steps have only to ascend: an isotonic regression
    return list(isotonic_regression(np.asarray(wanted, dtype=float) - steps) + steps)


def intervals(palette: Palette, table: Table, ax: Axes | None = None) -> Axes:
    """Draws of the reference's largest coordinate, minus the reference: one line an estimator.

    Thin: 99 % of the draws; thick: half of them; dot: their mean. The axis is linear near 0 and logarithmic far from
    it, so that no estimator is too wide for the panel.
    """
    rows = [row for row in table["estimators"][::-1] if row.get("quantiles")]
    ax = axes(palette, ax, (PANEL[0], _height(table["estimators"])))
    target = table.get("largest") or 0.0
    for level, row in enumerate(rows):
        lowest, lower, upper, highest = (q - target for q in row["quantiles"])
        colour = _colour(palette, row)
        ax.plot([lowest, highest], [level] * 2, color=colour, linewidth=1)
        ax.plot([lower, upper], [level] * 2, color=colour, linewidth=4, solid_capstyle="butt", alpha=0.7)
        ax.scatter(row["mean"] - target, level, s=18, zorder=3, **_marker(palette, row))
    _wide_and_narrow(ax)
    ax.axvline(0, color=palette.text, linewidth=0.8)
    ax.set_yticks(range(len(rows)), [short(row["name"]) for row in rows])
    ax.set(xlabel="largest coordinate − reference (nats per unit)", ylim=(-0.6, len(rows) - 0.4))
    return ax


def _wide_and_narrow(ax: Axes) -> None:
    """An axis that is linear within a tenth of its length around 0, with five plain numbers."""
    most = max(map(abs, ax.get_xlim()))
    ends = _round_down(most), _round_down(most / 4)
    ax.set_xscale("asinh", linear_width=most / 10)
    ax.set(xlim=(-most, most))
    ax.set_xticks(ticks := sorted({0.0, *ends, *(-end for end in ends)}), [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)


def _round_down(value: float) -> float:
    """1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(d * power for d in (5, 2, 1) if d * power <= value)
