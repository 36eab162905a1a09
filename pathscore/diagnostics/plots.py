"""The pictures of a diagnosis: each function takes a `Palette`, arrays and a panel `ax`, and returns the Axes.

Without `ax` the panel is a new one; its figure is `ax.figure`. Arrays are numpy; N data points, D coordinates, U units.
Nothing here computes a diagnostic.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from pathscore.diagnostics import uniformity
from pathscore.diagnostics.palette import PANEL, Palette, above, axes, legend
from pathscore.diagnostics.reliability import Curve

SQUARE = (3.9, 3.3)

MOSAIC_COLUMNS = 9
"""Pictures that a mosaic has room for in a row, at least."""


def histogram(
    palette: Palette,
    values: np.ndarray,
    label: str,
    limits: tuple[float, float] | None = None,
    threshold: float | None = None,
    what: str = "data points",
    ax: Axes | None = None,
) -> Axes:
    """Histogram of the finite values, of data points or of what is said, with a threshold."""
    ax = axes(palette, ax)
    finite = values[np.isfinite(values)]
    if len(finite):
        ax.hist(finite, bins=25, range=limits, color=palette.main)
    left_out = len(values) - len(finite)
    ax.set(xlabel=label + (f" ({left_out} not finite)" if left_out else ""), ylabel=what)
    if threshold is not None:
        ax.axvline(threshold, color=palette.bad, linestyle="--", label=f"threshold {threshold:.2f}")
        legend(ax, palette)
    return ax


def ecdf_plot(
    palette: Palette, pit: np.ndarray, worst: int, label: str, level: float = 0.999, ax: Axes | None = None
) -> Axes:
    """ECDF of ranks minus the diagonal, with the simultaneous band: all coordinates (N, D), one in front.

    The level is that of the verdict: a line leaves the band where the deviation is significant at 1 − level.
    """
    ax = axes(palette, ax)
    band = uniformity.band(len(pit), 1 - (1 - level) / pit.shape[1])
    low, high = band.lower - band.grid, band.upper - band.grid
    name = f"{100 * level:g} % simultaneous band"
    ax.fill_between(band.grid, low, high, color=palette.faint, alpha=0.6, step="mid", label=name)
    lines = [np.searchsorted(np.sort(column), band.grid, side="right") / len(pit) - band.grid for column in pit.T]
    ax.plot(band.grid, np.transpose(lines[:200]), color=palette.main, alpha=0.35, linewidth=0.8)
    ax.plot(band.grid, lines[worst], color=palette.second, linewidth=2, label=label)
    ax.axhline(0, color=palette.text, linewidth=0.6)
    ax.set(xlabel="rank of the truth, scaled to 0 … 1", ylabel="ECDF − uniform")
    above(ax, palette)  # the band fills the middle of the frame, whatever the data
    return ax


def coverage_plot(
    palette: Palette, nominal: np.ndarray, observed: np.ndarray, half: np.ndarray, ax: Axes | None = None
) -> Axes:
    """Observed against nominal coverage, with intervals of ± `half`."""
    ax = axes(palette, ax, SQUARE)
    ax.plot([0, 1], [0, 1], color=palette.faint)
    ax.errorbar(nominal, observed, yerr=half, fmt="o", markersize=4, color=palette.main, capsize=3)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="nominal coverage", ylabel="observed coverage", aspect="equal")
    return ax


def reliability_plot(palette: Palette, held_out: Curve, model: Curve, ax: Axes | None = None) -> Axes:
    """Isotonic frequency of ones against their predicted probability (PAVA), of the data and of data of the model."""
    ax = axes(palette, ax, SQUARE)
    ax.plot([0, 1], [0, 1], color=palette.faint)
    ax.step(model.predicted, model.observed, where="mid", color=palette.second, linewidth=1.8, label="simulated data")
    ax.step(held_out.predicted, held_out.observed, where="mid", color=palette.main, linewidth=1.8, label="data")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="share of ones", aspect="equal")
    legend(ax, palette)
    return ax


def rootogram(
    palette: Palette, observed: np.ndarray, drawn: np.ndarray, rebuilt: np.ndarray, label: str, ax: Axes | None = None
) -> Axes:
    """Square-root frequencies of a count, held-out bars against the model's mean and its 95 % range of data sets.

    observed (N,), drawn and rebuilt (S, N): each row is one data set of the same size, from prior and posterior
    predictive.
    """
    ax = axes(palette, ax)
    low, high = min(observed.min(), drawn.min()), max(observed.max(), drawn.max())
    edges = (
        np.linspace(low - 0.5, high + 0.5, min(int(high - low) + 2, 41)) if high > low else np.array([low - 1, low + 1])
    )
    centres = (edges[1:] + edges[:-1]) / 2
    sets = np.stack([np.histogram(row, edges)[0] for row in drawn])
    ax.bar(
        centres,
        np.sqrt(np.histogram(observed, edges)[0]),
        width=0.85 * np.diff(edges),
        color=palette.main,
        alpha=0.75,
        label="data",
    )
    ax.plot(centres, np.sqrt(sets.mean(0)), color=palette.second, marker="o", markersize=3, label="model")
    lower, upper = np.quantile(sets, [0.025, 0.975], axis=0)
    ax.fill_between(
        centres, np.sqrt(lower), np.sqrt(upper), color=palette.second, alpha=0.25, label="95 % of data sets"
    )
    again = np.stack([np.histogram(row, edges)[0] for row in rebuilt]).mean(0)
    ax.plot(
        centres, np.sqrt(again), color=palette.text, marker="x", markersize=4, linestyle="", label="reconstructions"
    )
    ax.set(xlabel=label, ylabel="√ frequency")
    above(ax, palette)
    return ax


def summaries_plot(
    palette: Palette, observed: Mapping[str, float], drawn: Mapping[str, np.ndarray], ax: Axes | None = None
) -> Axes:
    """Summaries of a data set (dots) beside those of drawn ones, (S,) each, in standard deviations from their mean."""
    ax = axes(palette, ax)
    names = list(observed)[::-1]
    for level, name in enumerate(names):
        centre, spread = drawn[name].mean(), max(drawn[name].std(), 1e-12)
        interval(palette, ax, level, (drawn[name] - centre) / spread)
        ax.scatter((observed[name] - centre) / spread, level, s=28, color=palette.second, zorder=3)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="standard deviations of the draws", ylim=(-0.6, len(observed) - 0.4))
    return ax


def interval(palette: Palette, ax: Axes, level: float, draws: np.ndarray, colour: str = "") -> None:
    """95 % of the draws as a thin horizontal line, half of them as a thick one."""
    low, lower, upper, high = np.quantile(draws, [0.025, 0.25, 0.75, 0.975])
    ax.plot([low, high], [level] * 2, color=colour or palette.main, linewidth=1)
    ax.plot([lower, upper], [level] * 2, color=colour or palette.main, linewidth=4, solid_capstyle="butt", alpha=0.7)


def forest_plot(
    palette: Palette, draws: np.ndarray, weights: np.ndarray, names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Draws (S, U) of the guide, 95 % and half of them; dots: their mean, and their mean under the weights (S,)."""
    ax = axes(palette, ax, (PANEL[0], max(PANEL[1], 0.2 * len(names) + 0.8)))
    for level, column in enumerate(draws.T[::-1]):
        interval(palette, ax, level, column)
        first = level == 0
        ax.scatter(column.mean(), level, s=20, color=palette.main, zorder=3, label="guide" if first else None)
        mean = (column * weights).sum() / weights.sum()
        ax.scatter(mean, level, s=26, facecolors="none", edgecolors=palette.second, zorder=4)
    ax.scatter([], [], s=26, facecolors="none", edgecolors=palette.second, label="importance-weighted mean")
    ax.set_yticks(range(len(names)), list(names)[::-1])
    ax.set_ylim(-0.6, len(names) - 0.4)
    above(ax, palette)
    return ax


def khat_plot(palette: Palette, khat: np.ndarray, threshold: float, ax: Axes | None = None) -> Axes:
    """Pareto k-hat of each observation (N,), those above the threshold in another colour."""
    ax = axes(palette, ax)
    over = khat > threshold
    index = np.arange(len(khat))
    for chosen, colour in ((~over, palette.main), (over, palette.bad)):
        ax.scatter(index[chosen], khat[chosen], s=8, color=colour)
    ax.axhline(threshold, color=palette.bad, linestyle="--", linewidth=1, label=f"threshold {threshold:.2f}")
    ax.set(xlabel="observations", ylabel="Pareto k-hat")
    above(ax, palette)
    return ax


def gap_plot(palette: Palette, amortisation: np.ndarray, approximation: np.ndarray, ax: Axes | None = None) -> Axes:
    """Stacked bars of the two gaps per data point, sorted."""
    ax = axes(palette, ax)
    order = np.argsort(amortisation + approximation)
    index = np.arange(len(order))
    ax.bar(index, approximation[order], color=palette.main, width=1.0, label="approximation gap")
    ax.bar(
        index,
        np.maximum(amortisation[order], 0),
        bottom=np.maximum(approximation[order], 0),
        color=palette.second,
        width=1.0,
        label="amortisation gap",
    )
    ax.set(xlabel="data points, sorted", ylabel="nat")
    above(ax, palette)
    return ax


def chains_plot(palette: Palette, shift: np.ndarray, scale: np.ndarray, ax: Axes | None = None) -> Axes:
    """Guide against NUTS for every coordinate: error of the mean and ratio of standard deviations."""
    ax = axes(palette, ax)
    ax.axhline(1, color=palette.faint)
    ax.axvline(0, color=palette.faint)
    ax.scatter(shift, scale, s=18, color=palette.main, alpha=0.7)
    ax.set(xlabel="guide mean − chain mean (posterior sd)", ylabel="guide sd ÷ chain sd")
    return ax


def image_grid(palette: Palette, images: np.ndarray, row_labels: Sequence[str] = (), ax: Axes | None = None) -> Axes:
    """Pictures (R, K, C, H, W) in R rows of K, one mosaic; values 0 … 1."""
    rows, columns, channels, height, width = images.shape
    tiles = np.full((rows, columns, channels, height + 1, width + 1), np.nan)
    tiles[..., :height, :width] = np.clip(images, 0, 1)
    mosaic = tiles.transpose(0, 3, 1, 4, 2).reshape(rows * (height + 1), columns * (width + 1), channels)
    across = max(columns, MOSAIC_COLUMNS) * (width + 1)  # few pictures a row stay small, with space beside them
    ax = axes(palette, ax, (7.2, max(0.9, 7.2 * mosaic.shape[0] / across) + 0.15))
    ax.imshow(
        np.nan_to_num(mosaic, nan=0.5) if channels == 3 else mosaic[..., 0],
        cmap=palette.sequence,
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    ax.tick_params(axis="y", labelsize=11, length=0)  # this figure is wider than the others and shrinks more
    ax.set(xticks=[], yticks=[(height + 1) * (r + 0.5) for r in range(len(row_labels))], yticklabels=list(row_labels))
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax
