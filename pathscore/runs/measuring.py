"""The gradient lab on a run: bias, variance and cost of gradient estimators at the run's present parameters.

`measure_job(job, args, …) -> Comparison` measures on the given data. `finish(job, args, directory) -> str` is the short
form at the end of every training run: it writes gradients.json and gradients.png and returns the table, in which the
run's own row is marked, and what another estimator would gain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from pathscore.config import PYROS, by_pattern
from pathscore.data import Arguments
from pathscore.elbos import ELBOS, make_elbo
from pathscore.elbos.plan import closest, key_of
from pathscore.errors import UsageError
from pathscore.estimators.families import family_name
from pathscore.evaluation.validation import evaluating
from pathscore.gradients.filling import by_site
from pathscore.gradients.lab import Specs
from pathscore.gradients.measure import measure
from pathscore.gradients.pictures import save
from pathscore.gradients.records import Row
from pathscore.gradients.replicates import Pair
from pathscore.gradients.results import Comparison, variance_ratio
from pathscore.gradients.table import grid
from pathscore.programs.lookup import place_name
from pathscore.runs import rundir

SHORT = ("pathwise", "stl", "score", "score-avg", "rloo", "disarm", "rebar")
"""The usual estimators in a training run's table, where they are legal, between the run's own and those of `auto`."""

DATA = 8
"""Number of data points whose gradient is measured."""

SHORT_VALUES = 800_000

SIGNIFICANT = 3.29
"""Standard errors of a ratio of variances: two-sided false-alarm rate 0.1 % a comparison."""

JSON, PICTURE = "gradients.json", "gradients.png"


def measure_job(job: Any, args: Arguments, estimators: Specs = None, **settings: Any) -> Comparison:
    """Measure at a run's present parameters, on the data points of args, each (B, …). `settings` as for `measure`.

    job: a `pathscore.runs.assembly.Assembly`. The objective is that of the run if it takes estimators, and otherwise
    the ELBO with Rao–Blackwellisation by plate.
    """
    svi = job.svi
    count = f": {len(args[0])} {'held-out' if job.local else 'training'} data points" if args else ""
    title = f"{job.dataset.name}, {job.program.title(job.config.options) or place_name(job.config.model)}{count}"
    settings = {**settings_of(job.config), **settings}
    with svi.scope(), evaluating(svi):
        own = by_site(used(job, Pair(svi.model, svi.guide, args))) if ELBOS[job.config.elbo].credit else None
        found = measure(svi.model, svi.guide, *args, estimators=estimators, title=title, **settings)
    return replace(found, own=own)


def settings_of(config: Any) -> dict[str, Any]:
    """The run's objective, its options and its particles, if the objective takes estimators; otherwise the ELBO."""
    if not ELBOS[config.elbo].credit:
        return {"elbo": "trace", "particles": config.particles or 1}
    options = {name: getattr(config, name) for name in ELBOS[config.elbo].options if hasattr(config, name)}
    return {"elbo": config.elbo, "particles": config.particles or 1, "options": options}


def used(job: Any, pair: Pair) -> dict[str, str]:
    """Site → the estimator that the run had there, in the words of `--estimator`; point masses are left out."""
    named, served = by_pattern(job.config.estimator), getattr(job.svi.elbo, "estimators", {})

    def word(name: str, site: Any) -> str:
        given = named.get(closest(named, name) or "", PYROS)
        if key_of(name) in served and (given in ("auto", PYROS) or site["infer"].get("estimator")):
            return served[key_of(name)].name
        return ("pathwise" if site["fn"].has_rsample else "score") if given == PYROS else given

    return {name: word(name, site) for name, site in pair.latents.items() if family_name(site["fn"]) != "delta"}


def automatic(job: Any, pair: Pair) -> dict[str, str]:
    """Site → the estimator that `auto` stands for; empty where the objective's options forbid it."""
    settings = settings_of(job.config)
    with suppress(UsageError):
        options = settings.get("options", {})
        elbo: Any = make_elbo(settings["elbo"], "auto", settings["particles"], pair.nesting, **options)
        plan = elbo.prepare(pair.model, pair.guide, *pair.args)
        return {name: site.estimator.name for name, site in plan.sites.items() if site.family != "delta"}
    return {}


def short(job: Any, args: Arguments, seed: int = 0) -> Comparison:
    """The table of a training run in a few seconds: the estimators of the run, the usual ones, and those of `auto`."""
    args = tuple(tensor[:DATA] for tensor in args) if job.local else args
    with job.svi.scope():
        pair = Pair(job.svi.model, job.svi.guide, args)
        ours = used(job, pair) if ELBOS[job.config.elbo].credit else {}
        auto, values = automatic(job, pair), pair.values
    found = {by_site(ours): ours, **{name: name for name in SHORT}, by_site(auto): auto}
    replicates = max(100, min(1000, SHORT_VALUES // values))
    named = {label: spec for label, spec in found.items() if spec}
    return measure_job(job, args, named, replicates=replicates, warmup=50, seed=seed, skip_illegal=True)


def gain(rows: Sequence[Row], own: str | None) -> str:
    """The estimator with the least variance × time among the unbiased ones whose variance is significantly lower.

    Empty where there is none: one line otherwise, with the flag that chooses it. Significance is at 0.1 % a comparison.
    """
    ours = next((row for row in rows if row.name == own), None)
    better = [row for row in rows if ours and row.unbiased and row.relative_cost < ours.relative_cost]
    better = [row for row in better if ours and less_variance(row, ours)]
    if ours is None or not better:
        return ""
    best = min(better, key=lambda row: row.relative_cost)
    ratio = ours.total_variance / best.total_variance if best.total_variance else math.inf
    share = "no variance" if math.isinf(ratio) else f"1/{ratio:.{int(ratio < 10)}f} of the variance of {own}"
    return (
        f"{best.name} has {share}, at {best.milliseconds / ours.milliseconds:.2g} times its time: "
        f"--estimator {flag(best.name)}"
    )


def less_variance(row: Row, ours: Row) -> bool:
    """Whether the variance of a row is significantly below that of another."""
    if not row.total_variance or not ours.total_variance:
        return row.total_variance < ours.total_variance
    return variance_ratio(row, ours, SIGNIFICANT)[1] < 1


def flag(label: str) -> str:
    """A row's label as the command line takes it: "y=disarm, z1+z2=stl" → "y=disarm,z1=stl,z2=stl"."""
    if "=" not in label.partition("(")[0]:
        return label
    return ",".join(f"{site}={word}" for sites, word in by_pattern(label).items() for site in sites.split("+"))


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
    lines = [
        f"how the gradient got through the sampling step ({comparison.replicates:,} draws each, --elbo "
        f"{comparison.elbo})",
        grid(comparison.rows, comparison.own),
        f"reference: {comparison.reference.source}; all estimators: pathscore gradients {directory}",
        gain(comparison.rows, comparison.own),
    ]
    return "\n".join(filter(None, lines))
