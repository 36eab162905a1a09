"""Compare runs, reports and results on the same data: `compare(things) -> Compared`, a page, a table, CSV and LaTeX.

The log p(x) bound of every run is computed again, with the same number of importance samples on the same data points.
The differences are therefore paired: the variation over data, which is far larger than most differences, cancels. R
runs, N data points.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pathscore import evaluation
from pathscore.data import Arguments
from pathscore.diagnostics.report import Report
from pathscore.errors import UsageError
from pathscore.reports import comparing
from pathscore.reports.diagnosing import plain
from pathscore.reports.entries import Entry, labels
from pathscore.runs.job import Done
from pathscore.runs.opening import Run, open_run
from pathscore.runs.rundir import make, write_text

PAGE, NUMBERS, CSV, LATEX = "comparison.html", "comparison.json", "comparison.csv", "comparison.tex"


@dataclass(frozen=True)
class Compared(Report):
    """A comparison: its page as a report, its table as data. path: the page, where files were written."""

    entries: tuple[Entry, ...] = ()
    measure: str = "log p(x)"
    path: Path | None = None

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row for each thing compared: means, standard errors, difference to the best."""
        import pandas

        return pandas.DataFrame(comparing.records(self.entries)).set_index("label")

    def to_csv(self) -> str:
        """`to_dataframe` as text."""
        return self.to_dataframe().to_csv()

    def to_latex(self) -> str:
        """A LaTeX table (booktabs): means ± standard errors, differences to the best with 99.7 % intervals."""
        import pandas

        frame = pandas.DataFrame(self._lines())
        text = frame.to_latex(index=False, escape=True, column_format="lrrrr")
        return text.replace("±", r"$\pm$").replace("Δ", r"$\Delta$").replace("≥", r"$\geq$")

    def __str__(self) -> str:
        import pandas

        return pandas.DataFrame(self._lines()).to_string(index=False)

    def _lines(self) -> list[dict[str, str]]:
        """The table in words: column → cell, a line for each thing compared."""
        return [
            {
                "": row["label"],
                self.measure: f"{row['log_likelihood']:.2f} ± {row['log_likelihood_se']:.2f}",
                "ELBO": "" if row["elbo"] is None else f"{row['elbo']:.2f} ± {row['elbo_se']:.2f}",
                "difference to the best": "" if row["verdict"] == "best" else f"{row['difference']:+.3f}",
                "99.7 % interval": "" if row["verdict"] == "best" else f"{row['low']:+.3f} to {row['high']:+.3f}",
            }
            for row in comparing.records(self.entries)
        ]

    def write(self, folder: Path) -> "Compared":
        """Write the page, the numbers as JSON and CSV, and the LaTeX table into a folder; returns self with `path`."""
        write_text(folder / NUMBERS, json.dumps(plain(comparing.numbers(self.entries, self.measure)), indent=2) + "\n")
        write_text(folder / CSV, self.to_csv())
        write_text(folder / LATEX, self.to_latex())
        write_text(folder / PAGE, self.html())
        return replace(self, path=folder / PAGE)


def compare(
    things: Sequence[Any] | Mapping[str, Any],
    *,
    points: int = 1000,
    samples: int = 1000,
    out: str | Path | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> Compared:
    """Compare things that were evaluated on the same data, in pairs over its points.

    things: run directories; what `train` returned; reports of `examine` on the same data; arrays (N,) of log p(x) for
        each data point. A mapping gives them labels.
    points, samples: runs are evaluated on the same `points` held-out data points with `samples` importance samples.
    out: the folder of comparison.html, .json, .csv and .tex; that of the first run directory where there are only
        runs, and none otherwise.

    Raises UsageError for fewer than two things, or things on different data, and RunDirError for a directory that is
    not a run.
    """
    named = dict(things) if isinstance(things, Mapping) else dict(enumerate(things))
    if len(named) < 2:
        raise UsageError("compare needs at least two run directories, reports or arrays")
    runs = {key: open_run(path) for key, thing in named.items() if (path := _directory(thing)) is not None}
    args = tuple(tensor[:points] for tensor in _same_data(list(runs.values()))) if runs else ()
    names = _names(named, runs)
    entries = []
    for key, thing in named.items():
        progress(names[key])
        entries.append(_evaluated(names[key], runs[key], args, samples) if key in runs else _read(names[key], thing))
    _same_length(entries)
    found = _compared(entries, runs, samples)
    if out is None and len(runs) < len(named):
        return found
    first = _directory(next(iter(named.values())))
    return found.write(make(Path(out) if out is not None else Path(first or ".").resolve().parent))


def _directory(thing: Any) -> Path | None:
    """The run directory that a thing is, or None."""
    found = thing.directory if isinstance(thing, Done) else thing
    return Path(found) if isinstance(found, str | Path) else None


def _names(named: Mapping[Any, Any], runs: Mapping[Any, Run]) -> dict[Any, str]:
    """The given labels; else the settings in which runs differ, the titles of reports, and numbers."""
    own = dict(zip(runs, labels([r.config for r in runs.values()], [r.name for r in runs.values()]), strict=True))
    found = {
        key: key if isinstance(key, str) else own.get(key) or getattr(thing, "title", "") or f"number {key + 1}"
        for key, thing in named.items()
    }
    taken = list(found.values())
    return {
        k: f"{name} ({k + 1})" if taken.count(name) > 1 and not isinstance(k, str) else name
        for k, name in found.items()
    }


def _read(label: str, thing: Any) -> Entry:
    """The figures of a report, or an array of them."""
    if isinstance(thing, Report):
        found = thing.pointwise
        values = found.get("log_likelihood", found.get("elpd"))
        if values is None:
            raise UsageError(
                f"the report {label!r} has no figure for each data point: examine 'importance' or 'loo' in it"
            )
        return Entry(label, None, values, found.get("elbo"))
    values = np.asarray(thing.detach().cpu() if torch.is_tensor(thing) else thing, dtype=float)
    if values.ndim != 1 or len(values) < 2:
        raise UsageError(f"{label!r} is neither a run directory nor a report nor an array (N,) of log p(x)")
    return Entry(label, None, values, None)


def _same_length(entries: Sequence[Entry]) -> None:
    sizes = {entry.label: len(entry.log_likelihood) for entry in entries}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{label}: {size}" for label, size in sizes.items())
        raise UsageError(
            f"different numbers of data points ({told}): compare figures of the same data, in the same order"
        )


def _compared(entries: Sequence[Entry], runs: Mapping[Any, Run], samples: int) -> Compared:
    local = all(run.job.local for run in runs.values())
    alone = bool(runs) and not any(run.job.held_out for run in runs.values())
    measure = f"log p(x), K = {samples}" if runs and local else "log predictive density" if runs else "log p(x)"
    measure = comparing.DRAWS if alone else measure
    size = len(entries[0].log_likelihood)
    title = (
        f"{len(entries)} runs on {next(iter(runs.values())).job.dataset.name}" if runs else f"{len(entries)} results"
    )
    subtitle = f"{size} data points" + (f", log p(x) of runs by {samples} importance samples each." if runs else ".")
    subtitle = f"{size} draws of each guide" if alone else subtitle
    sections = tuple(comparing.sections(entries, measure))
    return Compared(sections, title, subtitle, "", entries=tuple(entries), measure=measure)


def _same_data(runs: Sequence[Run]) -> Arguments:
    """The held-out data of the runs, which must be identical."""
    first = runs[0].job.held_out
    if not first:
        _same_program(runs)
    for run in runs[1:]:
        if not _alike(first, run.job.held_out):
            raise UsageError(
                f"{runs[0].path} and {run.path} have different held-out data ({_data(runs[0])}; {_data(run)}): compare "
                "runs with the same data set and --binarize"
            )
    return first


def _same_program(runs: Sequence[Run]) -> None:
    """Raise UsageError unless runs without held-out data have the same program: their bounds are of one quantity."""
    first = runs[0]
    for run in runs[1:]:
        if run.config.model != first.config.model or run.config.options != first.config.options:
            raise UsageError(
                f"{first.path} has no held-out data, and {run.path} has another program or other options of it: "
                "compare runs of the same program, or runs that have the same held-out data"
            )


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
        elif not args:
            bound = elbo = evaluation.whole_bound(job.model, job.guide, job.training, seed=1)
        else:  # with a latent variable that all data points share there is no bound for a single one
            bound = elbo = evaluation.predictive_density(job.model, job.guide, args, seed=1)
    return Entry(label, run, bound.cpu().double().numpy(), elbo.cpu().double().numpy())
