"""Colours for a figure on a light or a dark page, and figures that own their canvas.

`panels(palette, rows, columns) -> (Figure, axes)` makes a matplotlib Figure without pyplot, so that no global list of
figures, backend or style is touched; `axes(palette, ax) -> Axes` is the panel a picture is drawn in, the caller's or a
new one; `png(figure) -> bytes`.
"""

import io
import math
import warnings
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ACROSS = 36
"""Characters of labels, in all columns, that a legend above a panel of the page has room for."""


@dataclass(frozen=True)
class Palette:
    """Colours of one theme; series colours can be distinguished by readers with colour-vision deficiencies."""

    name: str
    background: str
    text: str
    faint: str
    main: str
    second: str
    good: str
    watch: str
    bad: str
    sequence: str  # matplotlib colour map of pictures
    series: tuple[str, ...]  # of things without an order; a thing keeps its colour in every panel


LIGHT = Palette(
    "light",
    "#ffffff",
    "#1d2733",
    "#c9d1da",
    "#1f6fb4",
    "#c2570c",
    "#1a7f4b",
    "#a86500",
    "#c0271d",
    "gray_r",
    ("#1f6fb4", "#c2570c", "#1a7f4b", "#8a4fb0", "#b3246b", "#0b7f8c", "#7a6200", "#5a6673", "#4b53bc", "#8b4a2b"),
)
DARK = Palette(
    "dark",
    "#161b22",
    "#d9e0e8",
    "#3a4552",
    "#6cb2f0",
    "#f0a062",
    "#5fcf95",
    "#e6b04d",
    "#ff8a80",
    "gray",
    ("#6cb2f0", "#f0a062", "#5fcf95", "#c99be8", "#f58bbd", "#5ecfdb", "#d9c254", "#98a4b1", "#9aa2f5", "#d69a76"),
)
THEMES = (LIGHT, DARK)


PANEL = (3.9, 2.6)
"""Inches of one panel: as wide as a phone, three side by side on a desk."""


def panels(
    palette: Palette, rows: int = 1, columns: int = 1, size: tuple[float, float] = PANEL
) -> tuple[Figure, list[Axes]]:
    """A figure with rows × columns axes in the palette's colours."""
    figure = Figure(figsize=size, facecolor=palette.background, layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for ax in axes:
        _dress(ax, palette)
    return figure, axes


def axes(palette: Palette, ax: Axes | None, size: tuple[float, float] = PANEL) -> Axes:
    """The given panel as it is, or a new one in the palette's colours."""
    return panels(palette, size=size)[1][0] if ax is None else ax


def figure_of(ax: Axes) -> Figure:
    """The figure that a panel is part of."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def _dress(ax: Axes, palette: Palette) -> None:
    ax.set_facecolor(palette.background)
    ax.tick_params(which="both", colors=palette.text, labelsize=8)
    for side, spine in ax.spines.items():
        spine.set_color(palette.faint)
        spine.set_visible(side in ("left", "bottom"))
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        text.set_color(palette.text)
        text.set_fontsize(9)


def legend(ax: Axes, palette: Palette, **options) -> None:
    """A legend without a box."""
    ax.legend(frameon=False, fontsize=8, labelcolor=palette.text, **options)


def above(ax: Axes, palette: Palette, columns: int = 2) -> None:
    """A legend above the panel, where it hides nothing: in one column where more would not fit into the panel."""
    labels = ax.get_legend_handles_labels()[1]
    rows = max(1, math.ceil(len(labels) / columns))
    width = sum(max(map(len, labels[i : i + rows])) for i in range(0, len(labels), rows))
    columns = columns if width <= ACROSS else 1
    legend(ax, palette, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2)


def png(figure: Figure, dpi: int = 132) -> bytes:
    """The figure as PNG bytes."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        # Of a legend that takes a second to place: the picture is right all the same.
        warnings.filterwarnings("ignore", 'Creating legend with loc="best"', UserWarning)
        figure.savefig(out, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    return out.getvalue()
