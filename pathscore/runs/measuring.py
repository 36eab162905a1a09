"""The gradient lab on a run: bias, variance and cost of gradient estimators at the run's present parameters.

`measure_job(job, args, …) -> Comparison` measures on the given data. `finish(job, args, directory) -> str` is the short
form at the end of every training run: it writes gradients.json and gradients.png and returns the table.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from pathscore.data import Arguments
from pathscore.elbos import ELBOS
from pathscore.errors import UsageError
from pathscore.evaluation.validation import evaluating
from pathscore.gradients.lab import Specs
from pathscore.gradients.measure import measure
from pathscore.gradients.pictures import save
from pathscore.gradients.replicates import Pair
from pathscore.gradients.results import Comparison
from pathscore.gradients.table import grid
from pathscore.programs.lookup import place_name
from pathscore.runs import rundir

SHORT = ("pathwise", "stl", "score", "score-avg", "rloo", "disarm", "rebar")
"""The estimators in a training run's table, where they are legal. The run's own estimator comes first."""

DATA = 8
"""Number of data points whose gradient is measured."""

SHORT_VALUES = 800_000
JSON, PICTURE = "gradients.json", "gradients.png"


def measure_job(job: Any, args: Arguments, estimators: Specs = None, **settings: Any) -> Comparison:
    """Measure at a run's present parameters, on the data points of args, each (B, …). `settings` as for `measure`.

    job: a `pathscore.runs.assembly.Assembly`. The objective is that of the run if it takes estimators, and otherwise
    the ELBO with Rao–Blackwellisation by plate.
    """
    svi = job.svi
    count = f": {len(args[0])} held-out data points" if args else ""
    title = f"{job.dataset.name}, {job.program.title(job.config.options) or place_name(job.config.model)}{count}"
    settings = {**settings_of(job), **settings}
    with svi.scope(), evaluating(svi):
        return measure(svi.model, svi.guide, *args, estimators=estimators, title=title, **settings)


def settings_of(job: Any) -> dict[str, Any]:
    """The run's objective, its options and its particles, if the objective takes estimators; otherwise the ELBO."""
    config = job.config
    if not ELBOS[config.elbo].credit:
        return {"elbo": "trace", "particles": config.particles or 1}
    options = {name: getattr(config, name) for name in ELBOS[config.elbo].options if hasattr(config, name)}
    return {"elbo": config.elbo, "particles": config.particles or 1, "options": options}


def own_estimator(job: Any, pair: Pair) -> str:
    """The run's own estimators in the form of the command line: `--estimator`, or what Pyro does at each site."""
    if job.config.estimator:
        return job.config.estimator
    chosen = {name: "pathwise" if site["fn"].has_rsample else "score" for name, site in pair.latents.items()}
    kinds = sorted(set(chosen.values()))
    return kinds[0] if len(kinds) == 1 else ",".join(f"{name}={kind}" for name, kind in chosen.items())


def short(job: Any, args: Arguments, seed: int = 0) -> Comparison:
    """The table of a training run: its own estimator beside the usual ones, in a few seconds."""
    args = tuple(tensor[:DATA] for tensor in args) if job.local else args
    with job.svi.scope():
        pair = Pair(job.svi.model, job.svi.guide, args)
        own, values = own_estimator(job, pair), pair.values
    found: dict[str, Any] = {own: own, **{name: name for name in SHORT}}
    replicates = max(100, min(1000, SHORT_VALUES // values))
    return measure_job(job, args, found, replicates=replicates, warmup=50, seed=seed, skip_illegal=True)


def finish(job: Any, args: Arguments, directory: Path) -> str:
    """Measure, write gradients.json and gradients.png into the run directory, and return the table for the terminal.

    Raises: RunDirError when a file cannot be written.
    """
    try:
        comparison = short(job, args, job.config.seed)
    except UsageError as error:
        return f"no table of gradients: {error}"
    rundir.write_text(directory / JSON, comparison.to_json())
    image = BytesIO()
    save(comparison, image)
    rundir.write_bytes(directory / PICTURE, image.getvalue())
    return (
        f"how the gradient got through the sampling step ({comparison.replicates:,} draws each, --elbo "
        f"{comparison.elbo})\n{grid(comparison.rows)}\n"
        f"reference: {comparison.reference.source}; all estimators: pathscore gradients {directory}"
    )
