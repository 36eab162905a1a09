"""The section about the run: its settings, its result, and its training curves."""

import json
from functools import partial

from pathscore.config import options_of
from pathscore.diagnostics import curves
from pathscore.diagnostics.subject import Picture, Section, Table
from pathscore.runs.opening import Run

DATA = ("dataset", "data", "binarize", "model")
CHOICES = (
    "elbo",
    "estimator",
    "particles",
    "optimizer",
    "lr",
    "batch_size",
    "epochs",
    "steps",
    "kl_weight",
    "seed",
    "dtype",
)
RESULTS = (
    ("test_elbo", "held-out ELBO", "nat"),
    ("test_log_likelihood", "held-out log p(x), importance-weighted", "nat"),
    ("bound", "ELBO of the data set", "nat"),
    ("predictive_density", "held-out log predictive density", "nat"),
    ("train_elbo", "training ELBO", "nat"),
    ("active_units", "active units", ""),
    ("parameters", "parameters", ""),
    ("train_seconds", "training time", "s"),
    ("steps_per_second", "steps per second", ""),
)


NOTES = {
    "gradient-norm": "Root mean square over the steps since the point before; logarithmic scale.",
    "gradient-variance": "Against steps, on a logarithmic scale.",
}


def section(run: Run) -> Section:
    """Configuration, result with standard errors, training curves."""
    config = json.loads(run.config.to_json())
    names = (*DATA, *options_of(run.job.program.options), *CHOICES)
    chosen = [(name, _show(config[name])) for name in names if config.get(name) not in (None, [], "")]
    results = [
        (label, _value(run.summary, key, unit)) for key, label, unit in RESULTS if run.summary.get(key) is not None
    ]
    results += [(name, f"{value:.4g}") for name, value in (run.summary.get("measures") or {}).items()]
    results += [(name, f"{value:.2f} nat") for name, value in (run.summary.get("floor") or {}).items()]
    tables = [Table(("choice", "value"), [*chosen, ("steps done", str(run.step))], "All choices", folded=True)]
    if results:
        tables.insert(
            0, Table(("result", "value"), results, "From summary.json; ± is one standard error over held-out data.")
        )
    return Section("run", "What was run", _success(run), tables=tables, pictures=_pictures(run), notes=run.notes)


def _success(run: Run) -> str:
    """Why the run is no success, or nothing."""
    if not run.summary:
        return "The run has no summary.json: training or its evaluation did not finish."
    return "".join(f"This run is no success: {doubt}. " for doubt in run.summary.get("doubts") or [])


def _pictures(run: Run) -> list[Picture]:
    pictures = []
    if any("train_elbo" in line for line in run.lines):
        draw = partial(curves.training_plot, metrics=run.lines, x="step")
        alt = "The running mean is over the last 5 % of the rows seen."
        validated = any(line.get("valid_elbo") is not None for line in run.lines)
        title = "Training and validation ELBO" if validated else "Training ELBO"
        pictures.append(Picture("training", title, alt, draw))
    norm = {"training": curves.gradient_norms(run.lines)}
    for name, title, lines in (
        ("gradient-norm", "Gradient norm during training", norm),
        ("gradient-variance", "Gradient variance during training", curves.variances(run.lines)),
    ):
        if any(len(x) for x, _ in lines.values()):
            draw = partial(curves.several, lines=lines, x="step", y=" ".join(title.split()[:2]).lower(), log=True)
            pictures.append(Picture(name, title, NOTES[name], draw))
    return pictures


def _show(value) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _value(summary: dict, key: str, unit: str) -> str:
    value, error = summary[key], summary.get(f"{key}_se")
    text = f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    samples = summary.get(f"{key}_samples")
    parts = [text, f"± {error:.2f}" if error is not None else "", unit, f"(K = {samples})" if samples else ""]
    return " ".join(part for part in parts if part)
