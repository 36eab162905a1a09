"""The sections of a comparison: figures of each run, paired differences, averages over seeds, and curves."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from pathscore.diagnostics import curves
from pathscore.diagnostics.subject import Picture, Section, Table
from pathscore.reports.entries import APART, Entry, paired

DRAWS = "bound of one draw"
"""The measure of programs without data: log p(z) − log q(z) at draws z of each guide."""

RANKED = {
    False: "The best first, in nats per data point, ± one standard error over the data. All share the variation over "
    "data, so compare them by the paired differences below, not by these standard errors. log p(x) from importance "
    "samples is a lower bound; it is tighter for a better guide.",
    True: "The best first: the bound in nats, a mean over draws of each guide, ± one standard error over the draws.",
}
"""The text above the results, for programs with data (False) and without (True)."""


def sections(entries: Sequence[Entry], measure: str) -> list[Section]:
    """All sections of the page. measure: what `log_likelihood` is."""
    runs = [e for e in entries if e.run is not None]
    return [
        results(entries, measure),
        differences(entries, measure),
        *seeds(entries),
        *([training(runs)] if runs else []),
    ]


def mean_of(values: np.ndarray | None) -> str:
    """Mean ± standard error over the data; "–" for nothing."""
    if values is None:
        return "–"
    return f"{values.mean():.2f} ± {error_of(values):.2f}"


def error_of(values: np.ndarray) -> float:
    """Standard error of the mean over the data, NaN of a single value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def results(entries: Sequence[Entry], measure: str) -> Section:
    """One row for each entry, and where the runs lie."""
    ordered = sorted(entries, key=lambda e: -e.log_likelihood.mean())
    rows = [(e.label, mean_of(e.log_likelihood), mean_of(e.elbo), *_of_run(e)) for e in ordered]
    header = ["run", measure, "ELBO", "steps", "evaluations per data point and step", "seconds", "steps/s"]
    shown = [i for i, column in enumerate(zip(*rows, strict=True)) if i < 2 or set(column) != {"–"}]
    tables = [Table([header[i] for i in shown], [[row[i] for i in shown] for row in rows]), *own_figures(ordered)]
    places = [(e.label, str(e.run.path)) for e in ordered if e.run is not None]
    if places:
        tables.append(Table(("run", "directory"), places, "Run directories", folded=True))
    notes = [f"{e.label}: {note}" for e in entries if e.run for note in e.run.notes]
    return Section("results", "Results", RANKED[measure == DRAWS], tables=tables, notes=notes)


def own_figures(entries: Sequence[Entry]) -> list[Table]:
    """The figures that the programs of the runs compute, from summary.json; no table where there are none."""
    found = {e.label: (e.run.summary.get("measures") or {}) if e.run else {} for e in entries}
    names = list(dict.fromkeys(name for figures in found.values() for name in figures))
    rows = [(label, *(f"{figures[n]:.4g}" if n in figures else "–" for n in names)) for label, figures in found.items()]
    return [Table(("run", *names), rows, "Figures of the program on its held-out data, or of its guide.")] * bool(names)


def _of_run(e: Entry) -> tuple[str, str, str, str]:
    """Steps, evaluations for each, seconds, rate."""
    if e.run is None:
        return "–", "–", "–", "–"
    seconds, rate = e.run.summary.get("train_seconds"), e.run.summary.get("steps_per_second")
    return (
        f"{e.run.step:,}",
        f"{e.rows:,.0f}",
        "–" if seconds is None else f"{seconds:.1f}",
        "–" if rate is None else f"{rate:.0f}",
    )


def differences(entries: Sequence[Entry], measure: str) -> Section:
    """The differences of every entry to the best one, and a matrix of all pairs."""
    best = best_of(entries)
    others = sorted((e for e in entries if e is not best), key=lambda e: -e.log_likelihood.mean())
    rows = [
        (e.label, *_difference(e.log_likelihood, best.log_likelihood), *_difference(e.elbo, best.elbo)) for e in others
    ]
    header = ("run", f"Δ {measure}", "99.7 % interval", "", "Δ ELBO", "99.7 % interval", "")
    if all(e.elbo is None for e in entries):
        header, rows = header[:4], [row[:4] for row in rows]
    each, source = ("draw", "draws") if measure == DRAWS else ("data point", "data")
    intro = (
        f"Paired differences to the best, {best.label}: nats per {each}, ± one standard error over the same {each}s. "
        f"A difference is significant beyond {APART:g} standard errors. This is the uncertainty from the {source} "
        "only: one seed for each setting does not show the variation over seeds."
    )
    tables = [Table(header, rows)] + ([_matrix(entries, measure)] if len(entries) > 2 else [])
    return Section("differences", "Paired differences", intro, tables=tables)


def best_of(entries: Sequence[Entry]) -> Entry:
    """The entry with the largest mean log-likelihood."""
    return max(entries, key=lambda e: e.log_likelihood.mean())


def _difference(a: np.ndarray | None, b: np.ndarray | None) -> tuple[str, str, str]:
    """Mean ± standard error, interval, and whether it is significant."""
    if a is None or b is None:
        return ("–", "–", "")
    found = paired(a, b)
    low, high = found.interval
    return (f"{found.mean:+.3f} ± {found.error:.3f}", f"{low:+.3f} … {high:+.3f}", found.words)


def _matrix(entries: Sequence[Entry], measure: str) -> Table:
    rows = [[a.label, *("" if a is b else _short(a, b) for b in entries)] for a in entries]
    caption = f"Δ {measure} of every pair ± one standard error, in nats."
    return Table(["row − column", *(e.label for e in entries)], rows, caption)


def _short(a: Entry, b: Entry) -> str:
    found = paired(a.log_likelihood, b.log_likelihood)
    return f"{found.mean:+.2f} ± {found.error:.2f}"


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
    metrics = {e.label: e.run.lines for e in entries if e.run is not None}
    evaluations = {e.label: e.evaluations or 1.0 for e in entries}
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


def numbers(entries: Sequence[Entry], measure: str) -> dict:
    """The contents of comparison.json."""
    best = best_of(entries)
    return {"measure": measure, "points": len(best.log_likelihood), "best": best.label, "runs": records(entries)}


def records(entries: Sequence[Entry]) -> list[dict]:
    """A row of plain numbers for each entry, unrounded; `low` and `high` end the 99.7 % interval of the difference."""
    best, rows = best_of(entries), []
    for e in entries:
        d = paired(e.log_likelihood, best.log_likelihood)
        rows.append(
            {
                "run": None if e.run is None else str(e.run.path),
                "label": e.label,
                "log_likelihood": float(e.log_likelihood.mean()),
                "log_likelihood_se": error_of(e.log_likelihood),
                "elbo": None if e.elbo is None else float(e.elbo.mean()),
                "elbo_se": None if e.elbo is None else error_of(e.elbo),
                "difference": d.mean,
                "difference_se": d.error,
                "low": d.interval[0],
                "high": d.interval[1],
                "verdict": "best" if e is best else d.words,
                "steps": None if e.run is None else e.run.step,
                "evaluations_per_step": e.evaluations,
            }
        )
    return rows
