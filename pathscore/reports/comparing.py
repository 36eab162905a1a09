"""The sections of a comparison: figures of each run, paired differences, averages over seeds, and curves."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from pathscore.diagnostics import curves
from pathscore.diagnostics.subject import Picture, Section, Table
from pathscore.reports.entries import APART, Entry, paired


def sections(entries: Sequence[Entry], samples: int) -> list[Section]:
    """All sections of the page."""
    return [results(entries, samples), differences(entries), *seeds(entries), training(entries)]


def _mean(values: np.ndarray) -> str:
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{values.mean():.2f} ± {error:.2f}"


def results(entries: Sequence[Entry], samples: int) -> Section:
    """One row per run."""
    rows = []
    for e in sorted(entries, key=lambda e: -e.log_likelihood.mean()):
        summary = e.run.summary
        seconds, rate = summary.get("train_seconds"), summary.get("steps_per_second")
        rows.append(
            (
                e.label,
                _mean(e.log_likelihood),
                _mean(e.elbo),
                f"{e.run.step:,}",
                f"{e.evaluations:,.0f}",
                "–" if seconds is None else f"{seconds:.1f}",
                "–" if rate is None else f"{rate:.0f}",
            )
        )
    local = all(e.run.job.local for e in entries)
    likelihood = f"log p(x), K = {samples}" if local else "log predictive density"
    header = ("run", likelihood, "ELBO", "steps", "evaluations per step", "seconds", "steps/s")
    notes = [f"{e.label}: {note}" for e in entries for note in e.run.notes]
    intro = (
        "The best run first, in nats per held-out data point, ± one standard error over the data. All runs share the "
        "variation over data, so compare runs by the paired differences below, not by these standard errors. log p(x) "
        "is a lower bound; it is tighter for a better guide."
    )
    return Section("results", "Results", intro, tables=[Table(header, rows)], notes=notes)


def differences(entries: Sequence[Entry]) -> Section:
    """The differences of every run to the best one, and a matrix of all pairs."""
    best = max(entries, key=lambda e: e.log_likelihood.mean())
    others = sorted((e for e in entries if e is not best), key=lambda e: -e.log_likelihood.mean())
    rows = []
    for e in others:
        likelihood, elbo = paired(e.log_likelihood, best.log_likelihood), paired(e.elbo, best.elbo)
        rows.append(
            (
                e.label,
                f"{likelihood.mean:+.3f} ± {likelihood.error:.3f}",
                likelihood.words,
                f"{elbo.mean:+.3f} ± {elbo.error:.3f}",
                elbo.words,
            )
        )
    header = ("run", "Δ log p(x)", "", "Δ ELBO", "")
    intro = (
        f"Paired differences to the best run, {best.label}: nats per data point, ± one standard error over the same "
        f"data points. A difference is significant beyond {APART:g} standard errors. This is the uncertainty from the "
        "data only: one seed per setting does not show the variation over seeds."
    )
    tables = [Table(header, rows)] + ([_matrix(entries)] if len(entries) > 2 else [])
    return Section("differences", "Paired differences", intro, tables=tables)


def _matrix(entries: Sequence[Entry]) -> Table:
    rows = [
        [a.label, *("" if a is b else f"{paired(a.log_likelihood, b.log_likelihood).mean:+.2f}" for b in entries)]
        for a in entries
    ]
    return Table(["row − column", *(e.label for e in entries)], rows, "Δ log p(x) of every pair, nats per data point.")


def seeds(entries: Sequence[Entry]) -> list[Section]:
    """Averages over runs that differ only by their seed; no section where no setting has two seeds."""
    groups: dict[tuple, list[Entry]] = {}
    for e in entries:
        groups.setdefault(e.group, []).append(e)
    if len(groups) == len(entries):
        return []
    header = ("settings", "seeds", "mean log p(x) ± s.e. over seeds", "sd over seeds", "range")
    tables = [Table(header, [_seed_row(members) for members in groups.values()])]
    return [Section("seeds", "Over seeds", "Averages over runs that differ only by their seed.", tables=tables)]


def _seed_row(members: Sequence[Entry]) -> tuple[str, ...]:
    means = np.array([e.log_likelihood.mean() for e in members])
    label = ", ".join(part for part in members[0].label.split(", ") if not part.startswith("seed ")) or "same settings"
    if len(means) == 1:
        return (label, "1", f"{means[0]:.2f}", "–", "–")
    spread = means.std(ddof=1)
    over = f"{means.mean():.2f} ± {spread / np.sqrt(len(means)):.2f}"
    return (label, str(len(means)), over, f"{spread:.3f}", f"{means.min():.2f} … {means.max():.2f}")


def training(entries: Sequence[Entry]) -> Section:
    """ELBO against steps, seconds and model evaluations, and gradient variance where it was tracked."""
    metrics = {e.label: e.run.metrics for e in entries}
    evaluations = {e.label: e.evaluations for e in entries}
    pictures = [
        Picture(
            f"elbo-{x}",
            f"ELBO against {x}",
            "One line per run: the validation ELBO where it was computed, else the training ELBO.",
            partial(curves.comparison_plot, runs=metrics, x=x, evaluations=evaluations),
        )
        for x in ("step", "seconds", "evaluations")
    ]
    number = {label: i for i, label in enumerate(metrics)}  # of a run's colour, the same in every panel
    tracked, looks = {}, {}
    for label, m in metrics.items():
        for dash, (name, line) in enumerate(curves.variances(m).items()):
            tracked[f"{label}: {name}"], looks[f"{label}: {name}"] = line, (number[label], dash)
    norms = {label: curves.gradient_norms(m) for label, m in metrics.items()}
    for name, title, lines, own in (
        ("gradient-variance", "Gradient variance during training", tracked, looks),
        ("gradient-norm", "Gradient norm during training", norms, None),
    ):
        if any(len(x) for x, _ in lines.values()):
            y = " ".join(title.split()[:2]).lower()
            draw = partial(curves.several, lines=lines, x="step", y=y, log=True, looks=own)
            pictures.append(Picture(name, title, "Logarithmic scale. A run has one colour in all pictures.", draw))
    intro = "" if tracked else "Gradient variance during training is drawn for runs with --track-variance."
    return Section("training", "Training", intro, pictures=pictures)


def numbers(entries: Sequence[Entry], samples: int) -> dict:
    """The contents of comparison.json."""
    best = max(entries, key=lambda e: e.log_likelihood.mean())
    rows = []
    for e in entries:
        d = paired(e.log_likelihood, best.log_likelihood)
        rows.append(
            {
                "run": str(e.run.path),
                "label": e.label,
                "log_likelihood": float(e.log_likelihood.mean()),
                "elbo": float(e.elbo.mean()),
                "difference": d.mean,
                "difference_se": d.error,
                "steps": e.run.step,
                "evaluations_per_step": e.evaluations,
            }
        )
    return {"samples": samples, "points": len(best.log_likelihood), "best": best.label, "runs": rows}
