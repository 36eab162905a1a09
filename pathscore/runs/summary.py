"""The figures of a finished run: `summarise(job, fitted, args) -> dict`, and the lines that are printed about it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from pathscore.config import options_of
from pathscore.data import Arguments
from pathscore.evaluation import evaluate, evaluate_whole
from pathscore.programs.lookup import place_name
from pathscore.runs.assembly import Assembly
from pathscore.runs.records import Fitted
from pathscore.runs.verdict import floor

RESULTS: dict[str, Callable[[dict[str, Any]], str | None]] = {
    "test ELBO": lambda s: nats(s, "test_elbo", "test_elbo_se"),
    "log p(x) ≥ (K = {test_log_likelihood_samples})": lambda s: nats(s, "test_log_likelihood"),
    "ELBO of the data set": lambda s: nats(s, "bound", "bound_se"),
    "log predictive density": lambda s: nats(s, "predictive_density", "predictive_density_se"),
    "train ELBO": lambda s: nats(s, "train_elbo"),
    "rate, distortion": lambda s: f"{s['rate']:.2f}, {s['distortion']:.2f} nats" if "rate" in s else None,
    "active units": lambda s: f"{s['active_units']} of {s['units']}" if "active_units" in s else None,
}
"""Rows of the printed table, each a function of the summary. Rows without a figure are left out."""


def nats(summary: dict[str, Any], key: str, error: str = "") -> str | None:
    """A figure in nats with its standard error; None where the summary does not have it."""
    if summary.get(key) is None:
        return None
    return f"{summary[key]:.2f} ± {summary[error]:.2f} nats" if error else f"{summary[key]:.2f} nats"


def summarise(job: Assembly, fitted: Fitted, args: Arguments) -> dict[str, Any]:
    """The contents of summary.json. Times are in seconds; bounds are in nats per data point or for the whole data set.

    args: the held-out data. Call it inside the run's parameter store.
    """
    config, program = job.config, job.program
    return {
        "elbo": config.elbo,
        "model": config.model,
        **{name: getattr(config, name) for name in options_of(program.options)},
        "estimator": config.estimator,
        "particles": config.particles,
        "dataset": job.dataset.name,
        "seed": config.seed,
        "steps": fitted.steps,
        "epochs": fitted.epochs,
        "parameters": parameters(job),
        "train_seconds": fitted.seconds,
        "steps_per_second": fitted.steps_per_second,
        "train_elbo": fitted.train_elbo,
        **bounds(job, args),
        "floor": floor(job, args),
        "measures": dict(program.measures(job.model, job.guide, args, config.options)),
        "exact": dict(program.reference(job.model, job.guide, args, config.options)),
    }


def parameters(job: Assembly) -> int:
    """The number of trained parameters of model and guide."""
    modules = [part for part in (job.model, job.guide) if isinstance(part, nn.Module)]
    own = {id(p): p for module in modules for p in module.parameters() if p.requires_grad}
    own |= {id(p): p for name, p in job.svi.parameters().items() if not name.startswith("estimators.")}
    return sum(p.numel() for p in own.values())


def bounds(job: Assembly, args: Arguments) -> dict[str, Any]:
    """Bounds on the held-out data. With shared latents: the bound of the training set, and the predictive density."""
    config = job.config
    if job.local:
        return evaluate(job.model, job.guide, args, importance_samples=config.eval_samples or 1, seed=config.seed)
    return evaluate_whole(job.model, job.guide, job.training, args, samples=config.eval_samples or 1, seed=config.seed)


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """The values with null for numbers that are not finite, which JSON cannot express."""
    return {
        k: finite(v) if isinstance(v, dict) else None if isinstance(v, float) and not math.isfinite(v) else v
        for k, v in values.items()
    }


def heading(job: Assembly, directory: Path) -> str:
    """A description of the run in two to four lines, printed before it starts."""
    config, data = job.config, job.dataset
    lines = [
        f"{place_name(config.model)}{with_title(job)}; objective {config.elbo}, estimator "
        f"{config.estimator}, K = {config.particles}",
        f"{job.steps} steps on {job.svi.device()}, threads: {config.threads}, in {directory}",
    ]
    if job.training:
        rows = f"{len(data.x)} training and {len(data.x_test)} test rows of {data.x.shape[1:].numel()} values"
        lines.insert(0, f"{data.name}: {rows}")
    if job.svi.compiled is not None:
        lines.append("each step is one compiled graph, built in the second step (takes seconds; avoid: --compile off)")
    return "\n".join(lines)


def with_title(job: Assembly) -> str:
    """ " with normal 16", or nothing for a program without a title."""
    title = job.program.title(job.config.options)
    return f" with {title}" if title else ""


def _beside(summary: dict[str, Any], floor: float) -> str:
    """How far the ELBO of a run is from that of a model without latent variables."""
    gain = summary.get("test_elbo", floor) - floor
    way = "better" if gain > 0 else "worse"
    return f", a model without latents: the ELBO is {abs(gain):.2f} nats {way}" if gain else ""


def closing(job: Assembly, summary: dict[str, Any], directory: Path) -> str:
    """The printed table of results and paths."""
    rows = {
        **{label.format_map(summary): text for label, show in RESULTS.items() if (text := show(summary))},
        **{name: f"{value:.2f} nats{_beside(summary, value)}" for name, value in summary["floor"].items()},
        **{name: f"{value:.4g}" for name, value in summary["measures"].items()},
        **{f"exact {name.replace('_', ' ')}": f"{value:.2f} nats" for name, value in summary["exact"].items()},
        "training": f"{summary['steps']} steps in {summary['train_seconds']:.1f} s, "
        f"{summary['steps_per_second']:.0f} steps/s",
        "saved in": str(directory),
        "pictures": ", ".join(sorted(path.name for path in directory.glob("*.png"))),
    }
    width = max(map(len, rows))
    return "\n".join(f"  {label:{width}}  {value}" for label, value in rows.items())
