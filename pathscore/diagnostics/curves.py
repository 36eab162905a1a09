"""Curves of training: ELBO against steps, seconds and model evaluations; gradient size along the trajectory.

Every function takes the lines of `metrics.jsonl` as `read_metrics` returns them, and a `Palette`.
"""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from pathscore.diagnostics.palette import PANEL, Palette, above, axes

Metrics = Sequence[dict[str, Any]]

WIDTH = 42
"""Characters of a name in one line."""

DASHES = ("-", "--", ":", "-.")


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


def stretches(metrics: Metrics) -> np.ndarray:
    """(step, seconds, weight, mean) of the training ELBO over the stretch that each line ends, (n, 4).

    A line holds the mean of its epoch so far. Sums of it over the rows of the epoch (over its steps, in files that do
    not hold rows) are differenced, so that nothing starts anew with an epoch.
    """
    found, start, before = [], 0, (0.0, 0.0)  # the epoch's first step; its weight and its sum at the line before
    for line in with_seconds(metrics):
        if line.get("train_elbo") is None:
            continue
        step = line.get("step", 0)
        weight = line.get("rows") or (step - start)
        total = weight * line["train_elbo"]
        if weight > before[0]:
            mean = (total - before[1]) / (weight - before[0])
            found.append((step, line["seconds"] or 0.0, weight - before[0], mean))
        before = weight, total
        if line.get("epoch_end"):
            start, before = step, (0.0, 0.0)
    return np.array(found, dtype=float).reshape(-1, 4)


def running(metrics: Metrics, x: str, share: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Running mean of the training ELBO over the last `share` of all rows, against "step" or "seconds".

    The mean runs through the ends of epochs. The first lines are means of all that came before them.
    """
    step, seconds, weight, mean = stretches(metrics).T
    if not len(step):
        return step, mean
    rows, total = np.cumsum(weight), np.cumsum(weight * mean)
    since = np.maximum(rows - np.maximum(share * rows[-1], weight), 0.0)
    known = np.interp(since, np.r_[0.0, rows], np.r_[0.0, total])
    return (step if x == "step" else seconds), (total - known) / (rows - since)


def training_plot(palette: Palette, metrics: Metrics, x: str, ax: Axes | None = None) -> Axes:
    """Training and validation ELBO against "step" or "seconds", with two standard errors of the validation ELBO."""
    ax = axes(palette, ax)
    at, train = running(metrics, x)
    ax.plot(at, train, color=palette.main, label="training, running mean")
    lines = [line for line in with_seconds(metrics) if line.get("valid_elbo") is not None]
    at, valid = series(lines, x, "valid_elbo")
    if len(at):
        error = 2 * np.array([line.get("valid_elbo_se") or 0.0 for line in lines if line.get(x) is not None])
        marker = "." if len(at) < 50 else ""
        ax.plot(at, valid, color=palette.second, marker=marker, label="validation ± 2 standard errors")
        ax.fill_between(at, valid - error, valid + error, color=palette.second, alpha=0.25, linewidth=0)
        valid = np.concatenate([valid - error, valid + error])
    ax.set(xlabel=x, ylabel="ELBO (nats per data point)")
    frame(ax, [train], [valid])
    above(ax, palette, 1)
    return ax


def frame(ax: Axes, steep: Sequence[np.ndarray], whole: Sequence[np.ndarray] = ()) -> None:
    """Limits that leave out the lowest 5 % of each `steep` curve, its first part, and nothing of a `whole` one."""
    values = [v[np.isfinite(v)] for v in (*steep, *whole)]
    lowest = [np.quantile(v, 0.05) if len(v) > 10 else v.min() for v in values[: len(steep)] if len(v)]
    lowest += [v.min() for v in values[len(steep) :] if len(v)]
    if lowest:
        low, high = min(lowest), max(v.max() for v in values if len(v))
        room = 0.08 * max(high - low, 1e-6)
        ax.set_ylim(low - room, high + room)


def comparison_plot(
    palette: Palette, runs: Mapping[str, Metrics], x: str, evaluations: Mapping[str, float], ax: Axes | None = None
) -> Axes:
    """Validation (or training) ELBO of several runs against "step", "seconds" or "evaluations".

    `evaluations[name]`: log-density evaluations of one data point in one step (batch size × rows).
    """
    lines, validated = {}, {}
    for name, metrics in runs.items():
        validated[name] = any(line.get("valid_elbo") is not None for line in metrics)
        at = "step" if x == "evaluations" else x
        filled = with_seconds(metrics)
        found = series(filled, at, "valid_elbo") if validated[name] else running(metrics, at)
        lines[name] = (found[0] * (evaluations[name] if x == "evaluations" else 1), found[1])
    ax = several(palette, lines, x, "ELBO (nats per data point)", ax=ax)
    values = {kind: [y for name, (_, y) in lines.items() if validated[name] == kind] for kind in (False, True)}
    frame(ax, values[False], values[True])
    return ax


def gradient_norms(metrics: Metrics) -> tuple[np.ndarray, np.ndarray]:
    """(steps, root mean square of the gradient norms since the line before); of one step in files that have no more.

    A short last batch has a noisier gradient; in the mean of many steps it is no peak. A stretch of few steps, as that
    of the last line, is pooled with the one before.
    """
    pooled = series(metrics, "step", "gradient_rms")
    return _pooled(*pooled) if len(pooled[0]) else series(metrics, "step", "gradient_norm")


def _pooled(steps: np.ndarray, rms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The root mean squares, a last stretch of less than half the length of the one before joined to it."""
    if len(steps) < 3:
        return steps, rms
    before, last = np.diff(steps)[-2:]
    if last >= before / 2:
        return steps, rms
    joined = np.sqrt((before * rms[-2] ** 2 + last * rms[-1] ** 2) / (before + last))
    return np.r_[steps[:-2], steps[-1]], np.r_[rms[:-2], joined]


def several(
    palette: Palette,
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    x: str,
    y: str,
    log: bool = False,
    looks: Mapping[str, tuple[int, int]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Named lines in one panel, their names above it.

    looks: name → (number of its colour, number of its dashes), by default a colour each, in order.
    """
    looks = looks or {name: (i, 0) for i, name in enumerate(lines)}
    named = len(lines) > 1
    texts = {name: fill(name, WIDTH) for name in lines}
    height = 0.17 * sum(text.count("\n") + 1 for text in texts.values())
    ax = axes(palette, ax, (PANEL[0], PANEL[1] + height * named))
    for name, (at, values) in lines.items():
        colour, dash = (palette.series[looks[name][0] % len(palette.series)], DASHES[looks[name][1] % len(DASHES)])
        ax.plot(at, values, color=colour, linestyle=dash, marker="." if len(at) < 50 else "", label=texts[name])
    ax.set(xlabel=x, ylabel=y, **({"yscale": "log"} if log else {}))
    if log:
        plain_numbers(ax)
    if named:
        above(ax, palette, 1)
    return ax


def plain_numbers(ax: Axes) -> None:
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
    return _held(metrics, "gradient_variance")


def watched(metrics: Metrics) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The program's own figures during training: name → (steps, values)."""
    return _held(metrics, "watched")


def _held(metrics: Metrics, key: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The columns of the tables that some lines hold under a key."""
    lines = [line for line in metrics if isinstance(line.get(key), dict)]
    names = dict.fromkeys(name for line in lines for name in line[key])
    flat = [{"step": line["step"], **line[key]} for line in lines]
    return {name: series(flat, "step", name) for name in names}
