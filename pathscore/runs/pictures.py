"""The pictures of one run: its training curve, and the pictures of its program.

Each picture is a function from data to a matplotlib Figure (no pyplot, no global style), with dark ink on white.
`save_pictures(run_dir, job, args) -> list of paths` saves all of them. `of_rows` is for programs whose data are rows x
(N, X) with the layout `shape`: (C, H, W) for images; other rows are drawn as curves.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pyro import poutine

from pathscore.diagnostics.curves import training_plot, watched
from pathscore.diagnostics.palette import LIGHT, figure_of, panels, png
from pathscore.diagnostics.plots import image_grid
from pathscore.errors import UsageError
from pathscore.evaluation.weights import Program, isolated
from pathscore.exact.rows import plates
from pathscore.runs.metrics import read_metrics
from pathscore.runs.rundir import write_bytes

COLUMNS = 12
ROWS = 6
CURVES = 6
DOTS_PER_INCH = 140


def training_curve(metrics: Sequence[dict[str, Any]]) -> Figure:
    """Training and validation ELBO in nats per data point, against steps and against seconds.

    `metrics`: the lines of metrics.jsonl. The band is two standard errors of the validation ELBO over the data.
    """
    figure, axes = panels(LIGHT, 1, 2, (8.0, 3.2))
    for ax, x in zip(axes, ("step", "seconds"), strict=True):
        training_plot(LIGHT, metrics, x, ax)
    axes[1].set_ylabel("")
    return figure


def watched_curves(lines: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """One panel for each figure that was followed during training, against steps."""
    figure, axes = panels(LIGHT, 1, len(lines), (4.0 * len(lines), 3.0))
    for ax, (name, (steps, values)) in zip(axes, lines.items(), strict=True):
        ax.plot(steps, values, color=LIGHT.main)
        ax.set(xlabel="step", ylabel=name)
    return figure


def reconstructions(x: torch.Tensor, means: torch.Tensor, shape: Sequence[int]) -> Figure:
    """Originals x (K, X) in the upper row of each pair, and reconstructions E[x | z] (K, X) in the lower row."""
    if len(shape) != 3:
        return _curves([x, means], ["original", "reconstruction"])
    starts = range(0, len(x), COLUMNS)
    rows = [row[start : start + COLUMNS] for start in starts for row in (x, means)]
    title = "held-out data, and E[x | z] at a draw z of the guide"
    return _grid(rows, shape, title, ["original", "reconstruction"] * len(starts))


def prior_samples(means: torch.Tensor, shape: Sequence[int]) -> Figure:
    """E[x | z] for draws z of the prior, (K, X)."""
    if len(shape) != 3:
        return _curves([means], ["E[x | z], z from the prior"])
    return _grid(list(means.split(COLUMNS)), shape, "E[x | z] at draws z of the prior")


def save_pictures(run_dir: str | Path, job: Any, args: tuple) -> list[Path]:
    """Draw and save training.png, watched.png where figures were followed, and the program's pictures; returns paths.

    job: an `Assembly`. args: the held-out data. Call it inside the run's parameter store, `with svi.scope()`. Draws
    come from a random stream of their own. Raises RunDirError when a file cannot be written.
    """
    run_dir = Path(run_dir)
    with isolated(args or (torch.zeros(1, device=job.svi.device()),), job.config.seed):
        metrics = read_metrics(run_dir / "metrics.jsonl")
        figures = {
            "training": training_curve(metrics),
            **({"watched": watched_curves(lines)} if (lines := watched(metrics)) else {}),
            **job.program.pictures(job.model, job.guide, args, job.dataset, job.config.options),
        }
    return [_save(figure, run_dir / f"{name}.png") for name, figure in figures.items()]


def of_rows(model: Program, guide: Program, x: torch.Tensor, shape: Sequence[int]) -> dict[str, Figure]:
    """Reconstructions of rows of x (N, X), and samples from the prior."""
    some = x[: 2 * COLUMNS]
    many = x[torch.arange(ROWS * COLUMNS, device=x.device) % len(x)]
    return {
        "reconstructions": reconstructions(some, rebuilt(model, guide, some), shape),
        "samples": prior_samples(drawn(model, many), shape),
    }


def rebuilt(model: Program, guide: Program, x: torch.Tensor) -> torch.Tensor:
    """E[x | z] at one draw z ~ q(z | x), (N, X)."""
    values = poutine.trace(guide).get_trace(x)
    return _observed_mean(poutine.trace(poutine.replay(model, trace=values)).get_trace(x), x)


def drawn(model: Program, x: torch.Tensor) -> torch.Tensor:
    """E[x | z] at one draw of the prior per row of x, (N, X). Only the shape of x is used."""
    return _observed_mean(poutine.trace(model).get_trace(x), x)


def _observed_mean(trace, x: torch.Tensor) -> torch.Tensor:
    nodes: dict[str, Any] = trace.nodes
    for name in trace.observation_nodes:
        site = nodes[name]
        if plates(site) and site["value"].numel() == x.numel():
            return site["fn"].mean.expand(site["value"].shape).reshape(x.shape)
    raise UsageError("the model observes no site of the shape of the data: there is nothing to draw")


def _grid(rows: list[torch.Tensor], shape: Sequence[int], title: str, names: Sequence[str] = ()) -> Figure:
    """Rows of images (K, X) on one grey scale. A range wider than 0 … 1 is mapped onto it."""
    low = min(0.0, *(row.min().item() for row in rows))
    high = max(1.0, *(row.max().item() for row in rows))
    width = max(len(row) for row in rows)
    blank = torch.zeros(width, rows[0].shape[1])
    filled = [torch.cat([(row.cpu().float() - low) / (high - low), blank[len(row) :]]) for row in rows]
    ax = image_grid(LIGHT, torch.stack(filled).reshape(len(rows), width, *shape).numpy(), names)
    ax.set_title(title, color=LIGHT.text, fontsize=10)
    return figure_of(ax)


def _curves(sets: list[torch.Tensor], names: list[str]) -> Figure:
    """Data that are not images: one panel per data point, one line per set (N, X), in the units of the data."""
    count = min(CURVES, len(sets[0]))
    rows, columns = math.ceil(count / 3), min(3, count)
    figure, axes = panels(LIGHT, rows, columns, (8.0, 1.9 * rows + 0.4))
    for i, ax in enumerate(axes):
        ax.set_visible(i < count)
        for values, name, colour in zip(sets, names, (LIGHT.main, LIGHT.second), strict=False):
            ax.plot(values[min(i, count - 1)].cpu().numpy(), color=colour, label=name)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    write_bytes(path, png(figure, DOTS_PER_INCH))
    return path
