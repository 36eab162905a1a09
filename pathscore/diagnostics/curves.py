"""Curves of training: ELBO against steps, seconds and model evaluations; gradient size along the trajectory.

Every function takes the lines of `metrics.jsonl` as `read_metrics` returns them, and a `Palette`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pathscore.diagnostics.palette import Palette, legend, panels

Metrics = Sequence[dict[str, Any]]


def series(metrics: Metrics, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Two columns of the lines that have both, in order."""
    pairs = [(line[x], line[y]) for line in metrics if line.get(x) is not None and line.get(y) is not None]
    found = np.array(pairs, dtype=float).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def with_seconds(metrics: Metrics) -> list[dict[str, Any]]:
    """The lines, each with the seconds of the last line before it that has them."""
    filled, seconds = [], None
    for line in metrics:
        seconds = line.get("seconds", seconds)
        filled.append({**line, "seconds": seconds})
    return filled


def training_plot(palette: Palette, metrics: Metrics) -> Figure:
    """ELBO against steps and against seconds, and the gradient norm."""
    figure, axes = panels(palette, 1, 3, (8.6, 2.9))
    metrics = with_seconds(metrics)
    for ax, x in zip(axes, ("step", "seconds"), strict=False):
        ax.plot(*series(metrics, x, "train_elbo"), color=palette.main, label="training")
        validation = series(metrics, x, "valid_elbo")
        if len(validation[0]):
            ax.plot(*validation, color=palette.second, label="validation")
        ax.set(xlabel=x, ylabel="ELBO (nat)" if x == "step" else "")
        clip_start(ax, series(metrics, x, "train_elbo")[1])
    legend(axes[0], palette)
    axes[2].plot(*series(metrics, "step", "gradient_norm"), color=palette.main)
    axes[2].set(xlabel="step", ylabel="gradient norm", yscale="log")
    return figure


def clip_start(ax, values: np.ndarray) -> None:
    """Leave the first, steep part of a curve out of the frame, which would flatten the rest."""
    if len(values) > 10 and np.isfinite(values).all():
        low = np.quantile(values, 0.05)
        room = max(values.max() - low, 1e-6) * 0.08
        ax.set_ylim(low - room, values.max() + room)


def comparison_plot(palette: Palette, runs: dict[str, Metrics], evaluations: dict[str, float]) -> Figure:
    """Validation (or training) ELBO of several runs against steps, seconds, and model evaluations.

    `evaluations[name]`: log-density evaluations of one datum in one step (batch size × rows).
    """
    figure, axes = panels(palette, 1, 3, (9.6, 3.4))
    lowest = []
    for i, (name, metrics) in enumerate(runs.items()):
        filled = with_seconds(metrics)
        lines = [{**line, "evaluations": line.get("step", 0) * evaluations[name]} for line in filled]
        key = "valid_elbo" if any("valid_elbo" in line for line in lines) else "train_elbo"
        for ax, x in zip(axes, ("step", "seconds", "evaluations"), strict=True):
            ax.plot(*series(lines, x, key), color=f"C{i % 10}", label=name, marker="." if key == "valid_elbo" else "")
            ax.set(xlabel=x)
        lowest.append(series(lines, "step", key)[1])
    everything = np.concatenate(lowest) if lowest else np.array([])
    for ax in axes:
        clip_start(ax, everything)
    axes[0].set(ylabel="ELBO (nat)")
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=8,
        labelcolor=palette.text,
    )
    return figure


def gradient_plot(palette: Palette, runs: dict[str, Metrics], key: str) -> Figure:
    """A gradient statistic of several runs along the trajectory, logarithmic."""
    figure, (ax,) = panels(palette, 1, 1, (7.2, 3.0))
    for i, (name, metrics) in enumerate(runs.items()):
        ax.plot(*series(metrics, "step", key), color=f"C{i % 10}", label=name)
    ax.set(xlabel="step", ylabel=key.replace("_", " "), yscale="log")
    legend(ax, palette)
    return figure
