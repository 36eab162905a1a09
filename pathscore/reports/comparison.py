"""Compare runs on the same held-out data: `compare(run_dirs) -> Path` of comparison.html.

The log p(x) bound of every run is computed again, with the same number of importance samples on the same data points.
The differences are therefore paired: the variation over data, which is far larger than most differences, cancels. R
runs, N data points.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from pathscore import evaluation
from pathscore.data import Arguments
from pathscore.diagnostics.page import render
from pathscore.errors import UsageError
from pathscore.reports import comparing
from pathscore.reports.diagnosing import plain
from pathscore.reports.entries import Entry, labels
from pathscore.runs.opening import Run, open_run
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
    """Evaluate the runs on the same `points` held-out data points with `samples` importance samples; write the page.

    The files comparison.html and comparison.json are written into `out`, by default the folder of the first run
    directory. Raises UsageError for fewer than two runs, or runs with different held-out data, and RunDirError for a
    directory that is not a run.
    """
    if len(run_dirs) < 2:
        raise UsageError("compare needs at least two run directories")
    runs = [open_run(path) for path in run_dirs]
    args = tuple(tensor[:points] for tensor in _same_data(runs))
    entries = []
    for label, run in zip(labels([run.config for run in runs], [run.name for run in runs]), runs, strict=True):
        progress(run.name)
        entries.append(_evaluated(label, run, args, samples))
    sections = comparing.sections(entries, samples)
    folder = make(Path(out) if out is not None else Path(run_dirs[0]).resolve().parent)
    write_text(folder / NUMBERS, json.dumps(plain(comparing.numbers(entries, samples)), indent=2) + "\n")
    title = f"{len(runs)} runs on {runs[0].job.dataset.name}"
    subtitle = f"{len(args[0])} held-out data points, log p(x) by {samples} importance samples each."
    write_text(
        folder / PAGE, render(title, subtitle, sections, "Runs: " + ", ".join(str(run.path) for run in runs) + ".")
    )
    return folder / PAGE


def _same_data(runs: Sequence[Run]) -> Arguments:
    """The held-out data of the runs, which must be identical."""
    first = runs[0].job.held_out
    if not first:
        raise UsageError(f"{runs[0].path} has no held-out data: compare runs that have the same held-out data")
    for run in runs[1:]:
        if not _alike(first, run.job.held_out):
            raise UsageError(
                f"{runs[0].path} and {run.path} have different held-out data ({_data(runs[0])}; {_data(run)}): compare "
                "runs with the same data set and --binarize"
            )
    return first


def _alike(a: Arguments, b: Arguments) -> bool:
    pairs = zip(a, b, strict=False)
    return len(a) == len(b) and all(x.shape == y.shape and bool((x.cpu() == y.cpu()).all()) for x, y in pairs)


def _data(run: Run) -> str:
    return f"{run.job.dataset.name}, --binarize {run.config.binarize}"


def _evaluated(label: str, run: Run, args: Arguments, samples: int) -> Entry:
    """Figures of a run on the common data, which are moved to the run's own device and type."""
    job = run.job
    args = tuple(tensor.to(own) for tensor, own in zip(args, job.held_out, strict=True))
    with job.svi.scope():
        if job.local:
            bound = evaluation.importance_bound(
                job.model, job.guide, args, num_particles=samples, seed=1, progress=False
            )
            elbo = evaluation.elbo(job.model, job.guide, args, samples=50, seed=2).elbo
        else:  # with a latent variable that all data points share there is no bound for a single one
            bound = elbo = evaluation.predictive_density(job.model, job.guide, args, seed=1)
    return Entry(label, run, bound.cpu().double().numpy(), elbo.cpu().double().numpy())
