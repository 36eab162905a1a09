"""Colours for a figure on a light or a dark page, and figures that own their canvas.

`panels(palette, rows, columns) -> (Figure, axes)` makes a matplotlib Figure without pyplot, so that no global list of
figures, backend or style is touched; `png(figure) -> bytes`.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure


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


LIGHT = Palette(
    "light", "#ffffff", "#1d2733", "#c9d1da", "#1f6fb4", "#c2570c", "#1a7f4b", "#a86500", "#c0271d", "gray_r"
)
DARK = Palette("dark", "#161b22", "#d9e0e8", "#3a4552", "#6cb2f0", "#f0a062", "#5fcf95", "#e6b04d", "#ff8a80", "gray")
THEMES = (LIGHT, DARK)


PANEL = (4.8, 3.3)
"""Inches of one panel: readable at the width of a phone, two side by side on a desk."""


def panels(
    palette: Palette, rows: int = 1, columns: int = 1, size: tuple[float, float] = PANEL
) -> tuple[Figure, list[Axes]]:
    """A figure with rows × columns axes in the palette's colours."""
    figure = Figure(figsize=size, facecolor=palette.background, layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for ax in axes:
        _dress(ax, palette)
    return figure, axes


def _dress(ax: Axes, palette: Palette) -> None:
    ax.set_facecolor(palette.background)
    ax.tick_params(which="both", colors=palette.text, labelsize=9)
    for side, spine in ax.spines.items():
        spine.set_color(palette.faint)
        spine.set_visible(side in ("left", "bottom"))
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        text.set_color(palette.text)
        text.set_fontsize(10)


def legend(ax: Axes, palette: Palette, **options) -> None:
    """A legend without a box."""
    ax.legend(frameon=False, fontsize=9, labelcolor=palette.text, **options)


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as PNG bytes."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        # Of a legend that takes a second to place: the picture is right all the same.
        warnings.filterwarnings("ignore", 'Creating legend with loc="best"', UserWarning)
        figure.savefig(out, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    return out.getvalue()
