"""Pictures of the latent space and of data: each function takes arrays and a `Palette` and returns a Figure.

Arrays are numpy; N data points, U units, M draws. Nothing here computes a diagnostic.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from pathscore.diagnostics.palette import Palette, legend, panels


def rate_plot(palette: Palette, rate: np.ndarray, active: np.ndarray) -> Figure:
    """KL of every unit, sorted, active ones in colour."""
    figure, (ax,) = panels(palette)
    order = np.argsort(rate)[::-1]
    ax.bar(np.arange(len(order)), rate[order], color=[palette.main if a else palette.faint for a in active[order]])
    ax.set(xlabel="units, sorted (grey: inactive)", ylabel="KL(q ‖ p) (nat)")
    return figure


def aggregate_plot(
    palette: Palette, aggregate: np.ndarray, prior: np.ndarray, names: Sequence[str], discrete: bool
) -> Figure:
    """Aggregate posterior against prior for a few units, (M, U): histograms, or frequencies of 1 for 0/1 units."""
    figure, axes = panels(palette, *((1, 1) if discrete else (2, 3)))
    if discrete:
        index = np.arange(len(names))
        axes[0].bar(index - 0.2, aggregate.mean(0), width=0.4, color=palette.main, label="aggregate posterior")
        axes[0].bar(index + 0.2, prior.mean(0), width=0.4, color=palette.second, label="prior")
        axes[0].set(
            xlabel="units with the largest difference", ylabel="frequency of 1", xticks=index, xticklabels=names
        )
        axes[0].tick_params(axis="x", labelrotation=60)
        top = max(aggregate.mean(0).max(), prior.mean(0).max())
        axes[0].set_ylim(0, 1.25 * top)  # room for the legend
        legend(axes[0], palette, ncols=2, loc="upper center")
        return figure
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    for ax, a, p, name in zip(axes, aggregate.T, prior.T, names, strict=False):
        low, high = np.quantile(np.concatenate([a, p]), [0.002, 0.998])
        edges = np.linspace(low, max(high, low + 1e-6), 41)
        ax.hist(a, edges, density=True, color=palette.main, alpha=0.7)
        ax.hist(p, edges, density=True, histtype="step", color=palette.second, linewidth=1.5)
        ax.set(title=name, yticks=[])
    return figure


def heat_map(palette: Palette, means: np.ndarray, order: np.ndarray, label: str) -> Figure:
    """q(z = 1 | x): data points down (sorted by label), units across."""
    figure, (ax,) = panels(palette)
    image = ax.imshow(means[order], aspect="auto", cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(image, ax=ax)
    bar.ax.tick_params(colors=palette.text, labelsize=9)
    ax.set(xlabel=label, ylabel="data points")
    return figure


def embedding_plot(
    palette: Palette, points: np.ndarray, labels: np.ndarray | None, axes_names: Sequence[str]
) -> Figure:
    """Two-dimensional projection of the guide's means (N, 2), coloured by label."""
    figure, (ax,) = panels(palette, size=(4.8, 4.2))
    if labels is None:
        ax.scatter(*points.T, s=8, color=palette.main, alpha=0.6)
    for i, label in enumerate(np.unique(labels) if labels is not None else []):
        own = points[labels == label]
        ax.scatter(*own.T, s=10, color=f"C{i % 10}", alpha=0.75, label=str(label))
    if labels is not None:
        legend(ax, palette, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.8)
    ax.set(xlabel=axes_names[0], ylabel=axes_names[1])
    return figure
