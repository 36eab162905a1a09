"""Curves of training: ELBO against steps, seconds and model evaluations; gradient size along the trajectory.

Every function takes the lines of `metrics.jsonl` as `read_metrics` returns them, and a `Palette`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

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


def training_plot(palette: Palette, metrics: Metrics, x: str) -> Figure:
    """Training and validation ELBO against "step" or "seconds"."""
    figure, (ax,) = panels(palette)
    metrics = with_seconds(metrics)
    ax.plot(*series(metrics, x, "train_elbo"), color=palette.main, label="training")
    validation = series(metrics, x, "valid_elbo")
    if len(validation[0]):
        ax.plot(*validation, color=palette.second, label="validation")
    ax.set(xlabel=x, ylabel="ELBO (nat)")
    clip_start(ax, series(metrics, x, "train_elbo")[1])
    legend(ax, palette)
    return figure


def clip_start(ax, values: np.ndarray) -> None:
    """Leave the first, steep part of a curve out of the frame, which would flatten the rest."""
    if len(values) > 10 and np.isfinite(values).all():
        low = np.quantile(values, 0.05)
        room = max(values.max() - low, 1e-6) * 0.08
        ax.set_ylim(low - room, values.max() + room)


def comparison_plot(palette: Palette, runs: Mapping[str, Metrics], x: str, evaluations: Mapping[str, float]) -> Figure:
    """Validation (or training) ELBO of several runs against "step", "seconds" or "evaluations".

    `evaluations[name]`: log-density evaluations of one data point in one step (batch size × rows).
    """
    lines = {}
    for name, metrics in runs.items():
        filled = [{**line, "evaluations": line.get("step", 0) * evaluations[name]} for line in with_seconds(metrics)]
        key = "valid_elbo" if any("valid_elbo" in line for line in filled) else "train_elbo"
        lines[name] = series(filled, x, key)
    figure = several(palette, lines, x, "ELBO (nat)")
    clip_start(figure.axes[0], np.concatenate([y for _, y in lines.values()]))
    return figure


def several(
    palette: Palette, lines: dict[str, tuple[np.ndarray, np.ndarray]], x: str, y: str, log: bool = False
) -> Figure:
    """Named lines in one panel, their names below it."""
    named = len(lines) > 1
    figure, (ax,) = panels(palette, size=(4.8, 3.3 + 0.2 * len(lines) * named))
    for i, (name, (at, values)) in enumerate(lines.items()):
        ax.plot(at, values, color=f"C{i % 10}", marker="." if len(at) < 50 else "", label=name)
    ax.set(xlabel=x, ylabel=y, **({"yscale": "log"} if log else {}))
    if log:
        plain_numbers(ax)
    if named:
        figure.legend(loc="outside lower left", ncols=1, frameon=False, fontsize=8, labelcolor=palette.text)
    return figure


def plain_numbers(ax) -> None:
    """5, 6, 7 instead of 5 × 10⁰, 6 × 10⁰, 7 × 10⁰ on a logarithmic axis that spans less than a decade or so."""
    low, high = ax.get_ylim()
    if high < 20 * low:
        for form in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
            form(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_locator(
            LogLocator(subs=(2.0, 5.0) if high > 4 * low else (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0))
        )


def variances(metrics: Metrics) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Tracked gradient variance by estimator: name → (steps, total variance)."""
    lines = [line for line in metrics if isinstance(line.get("gradient_variance"), dict)]
    names = dict.fromkeys(name for line in lines for name in line["gradient_variance"])
    flat = [{"step": line["step"], **line["gradient_variance"]} for line in lines]
    return {name: series(flat, "step", name) for name in names}
