"""Pictures of the latent space and of data: each function takes a `Palette`, arrays and a panel, returns Axes.

Arrays are numpy; N data points, U units, M draws. Nothing here computes a diagnostic.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from pathscore.diagnostics.palette import Palette, above, axes, figure_of, legend


def rate_plot(palette: Palette, rate: np.ndarray, active: np.ndarray, label: str, ax: Axes | None = None) -> Axes:
    """The rate of every unit, sorted, active ones in colour; `label`: what it is, a KL or a contribution to one."""
    ax = axes(palette, ax)
    order = np.argsort(rate)[::-1]
    index = np.arange(len(order))
    ax.bar(index, rate[order], color=[palette.main if a else palette.faint for a in active[order]])
    ax.axhline(0, color=palette.text, linewidth=0.6)
    ax.set(xlabel="units, sorted (grey: inactive)", ylabel=label, xlim=(-0.75, len(order) - 0.25))
    if len(order) <= 16:
        ax.set_xticks(index, [str(i) for i in order])
    return ax


def frequency_plot(
    palette: Palette, aggregate: np.ndarray, prior: np.ndarray, names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Frequency of 1 of a few 0/1 units, (M, U) draws each: aggregate posterior beside prior."""
    ax = axes(palette, ax)
    index = np.arange(len(names))
    for shift, draws, colour, label in (
        (-0.2, aggregate, palette.main, "aggregate posterior"),
        (0.2, prior, palette.second, "prior"),
    ):
        ax.bar(index + shift, draws.mean(0), width=0.4, color=colour, label=label)
    ax.set(ylabel="frequency of 1", xlim=(-0.75, len(names) - 0.25))
    ax.set_xticks(index, names, rotation=60)
    above(ax, palette)
    return ax


def aggregate_plot(
    palette: Palette, aggregate: np.ndarray, prior: np.ndarray, names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Histograms of a few units, (M, U) draws each, one above another: aggregate posterior filled, prior a line.

    In standard deviations of the prior from its mean, so that units share an axis.
    """
    ax = axes(palette, ax)
    centre, spread = prior.mean(0), np.maximum(prior.std(0), 1e-6)
    q, p = (aggregate - centre) / spread, (prior - centre) / spread
    low, high = np.quantile(np.concatenate([q, p]), [0.002, 0.998])
    edges = np.linspace(low, max(high, low + 1e-6), 41)
    middle = (edges[1:] + edges[:-1]) / 2
    for level, (a, b) in enumerate(zip(q.T[::-1], p.T[::-1], strict=True)):
        heights = [np.histogram(draws, edges)[0] / len(draws) for draws in (a, b)]
        top = max(h.max() for h in heights) / 0.85 or 1.0
        first = level == 0
        bottom, filled = np.full(len(middle), float(level)), level + heights[0] / top
        ax.fill_between(
            middle,
            bottom,
            filled,
            step="mid",
            color=palette.main,
            alpha=0.7,
            linewidth=0,
            label="aggregate posterior" if first else None,
        )
        ax.step(
            middle,
            level + heights[1] / top,
            where="mid",
            color=palette.second,
            linewidth=1.2,
            label="prior" if first else None,
        )
    ax.set_yticks(range(len(names)), list(names)[::-1])
    ax.set(xlabel="prior standard deviations from the prior's mean", ylim=(-0.1, len(names)))
    above(ax, palette)
    return ax


def heat_map(palette: Palette, means: np.ndarray, order: np.ndarray, label: str, ax: Axes | None = None) -> Axes:
    """q(z = 1 | x): data points down (sorted by label), units across."""
    ax = axes(palette, ax)
    image = ax.imshow(means[order], aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    bar = figure_of(ax).colorbar(image, ax=ax)
    bar.ax.tick_params(colors=palette.text, labelsize=8)
    ax.set(xlabel=label, ylabel="data points")
    return ax


def embedding_plot(
    palette: Palette,
    points: np.ndarray,
    labels: np.ndarray | None,
    axes_names: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Two-dimensional projection of the guide's means (N, 2), coloured by label."""
    ax = axes(palette, ax, (3.9, 3.1))
    if labels is None:
        ax.scatter(*points.T, s=6, color=palette.main, alpha=0.6)
    for i, label in enumerate(np.unique(labels) if labels is not None else []):
        own = points[labels == label]
        ax.scatter(*own.T, s=6, color=palette.series[i % len(palette.series)], alpha=0.75, label=str(label))
    if labels is not None:
        legend(ax, palette, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.8, handletextpad=0.1)
    ax.set(xlabel=axes_names[0], ylabel=axes_names[1])
    return ax
