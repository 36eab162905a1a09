"""Compare runs on the same held-out data: `compare(run_dirs) -> Path` of comparison.html.

Every run's log p(x) bound is computed anew with the same number of importance samples on the same data points, so that
differences are paired: the data's own spread, far larger than most differences, cancels. R runs, N data points.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pathscore import evaluation
from pathscore.diagnostics.page import render
from pathscore.errors import UsageError
from pathscore.reports import comparing
from pathscore.reports.diagnosing import plain
from pathscore.reports.entries import Entry, labels
from pathscore.runs.opening import Run, open_run, scratch_store
from pathscore.runs.rundir import make, write_text

PAGE, NUMBERS = "comparison.html", "comparison.json"


def compare(
    run_dirs: Sequence[str | Path],
    *,
    points: int = 1000,
    samples: int = 1000,
    out: str | Path | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> Path:
    """Evaluate the runs on the same `points` held-out data with `samples` importance samples and write the page.

    Written into `out`, by default the folder of the first run directory: comparison.html and comparison.json. Raises
    UsageError for fewer than two runs or runs whose held-out data differ, RunDirError for what isn't a run.
    """
    if len(run_dirs) < 2:
        raise UsageError("compare needs at least two run directories")
    runs = [open_run(path) for path in run_dirs]
    x = _same_data(runs)[:points]
    entries = []
    for label, run in zip(labels([run.config for run in runs], [run.name for run in runs]), runs, strict=True):
        progress(run.name)
        entries.append(_evaluated(label, run, x, samples))
    sections = comparing.sections(entries, samples)
    folder = make(Path(out) if out is not None else Path(run_dirs[0]).resolve().parent)
    write_text(folder / NUMBERS, json.dumps(plain(comparing.numbers(entries, samples)), indent=2) + "\n")
    title = f"{len(runs)} runs on {runs[0].job.dataset.name}"
    subtitle = f"{len(x)} held-out data points, log p(x) by {samples} importance samples each."
    write_text(
        folder / PAGE, render(title, subtitle, sections, "Runs: " + ", ".join(str(run.path) for run in runs) + ".")
    )
    return folder / PAGE


def _same_data(runs: Sequence[Run]) -> torch.Tensor:
    """The held-out data of the runs, which must be the same to the bit."""
    first = runs[0].held_out[0]
    for run in runs[1:]:
        other = run.held_out[0]
        if first.shape != other.shape or not torch.equal(first.cpu().double(), other.cpu().double()):
            raise UsageError(
                f"{runs[0].path} and {run.path} have different held-out data ({_data(runs[0])}; {_data(run)}): compare "
                "runs with the same data set and --binarize"
            )
    return first


def _data(run: Run) -> str:
    return f"{run.job.dataset.name}, --binarize {run.config.binarize}"


def _evaluated(label: str, run: Run, x: torch.Tensor, samples: int) -> Entry:
    job = run.job
    x = x.to(next(job.model.parameters()))
    with scratch_store():
        bound = evaluation.importance_bound(job.model, job.guide, x, num_particles=samples, seed=1, progress=False)
        elbo = evaluation.elbo(job.model, job.guide, x, samples=50, seed=2).elbo
    return Entry(label, run, bound.cpu().double().numpy(), elbo.cpu().double().numpy())
