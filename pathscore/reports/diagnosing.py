"""Diagnose a run directory on its held-out data: `diagnose(run_dir) -> Path` of report.html.

It also writes posterior.nc (draws in ArviZ's schema), diagnostics.json (verdicts and numbers) and the pictures. Each
file is written atomically.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pathscore.config import Config
from pathscore.data import Arguments
from pathscore.diagnostics.arviz import draw_tree
from pathscore.diagnostics.examining import sections_of, settings
from pathscore.diagnostics.page import Drawn, draw_all, render
from pathscore.diagnostics.palette import LIGHT
from pathscore.diagnostics.subject import Effort, Section, Subject
from pathscore.errors import RunDirError
from pathscore.programs.lookup import place_name
from pathscore.reports import gradients, training
from pathscore.runs.opening import Run, open_run
from pathscore.runs.rundir import write_text
from pathscore.runs.summary import with_title

NOTEBOOK = """\
import arviz as az
import numpy as np

draws = az.from_netcdf("{path}")
az.summary(draws, var_names=["{site}"], coords={{"data": [0]}}, kind="stats")
az.plot_forest(draws, var_names=["{site}"], coords={{"data": [0]}})

# Expectations under the posterior instead of the guide: reweight the draws, with one set of weights per data point.
log_w = draws["sample_stats"]["log_weight"]
w = np.exp(log_w - log_w.max("draw"))
mean = (draws["posterior"]["{site}"] * w).sum(["chain", "draw"]) / w.sum(["chain", "draw"])
"""

POSTERIOR, PAGE, NUMBERS, PICTURES = "posterior.nc", "report.html", "diagnostics.json", "diagnostics"


def diagnose(
    run_dir: str | Path,
    *,
    names: Sequence[str] | None = None,
    effort: Effort | None = None,
    strict: bool = False,
    progress: Callable[[str], None] = lambda name: None,
) -> Path:
    """Diagnose a run on its held-out data and write posterior.nc, diagnostics.json, pictures and report.html into it.

    Returns the path of the page. Raises RunDirError for a directory that is not a run, NumericsError when the weights
    of its checkpoint do not give finite draws, UsageError for unknown names.
    """
    run = open_run(run_dir)
    effort = effort or Effort()
    job = run.job
    args, labels = some(job.examined, effort.points) if job.local else job.examined, run.labels
    labels = None if labels is None else labels[: effort.points]
    with job.svi.scope():
        progress("posterior.nc")
        tree = write_posterior(run, args, effort)
        try:
            shape = job.dataset.shape if args else None
            subject = Subject(job.model, job.guide, args, tree, effort, labels, shape, flags_of(job.config))
            sections = [
                training.section(run),
                gradients.section(run.path),
                *sections_of(subject, names, strict, progress),
                notebook(run, subject.layout.of("latent")[-1].name),
            ]
        finally:
            tree.close()
    progress("report.html")
    drawn = draw_all(sections)
    write_pictures(run.path, drawn)
    write_text(run.path / NUMBERS, numbers(run, effort, sections))
    write_text(
        run.path / PAGE,
        render(f"Run {run.name}", subtitle(run, len(args[0]) if args else 0), sections, settings(effort), drawn),
    )
    return run.path / PAGE


def flags_of(config: Config) -> frozenset[str]:
    """The flags with which a run like this one is made, its program's own among them, and those of its diagnosis."""
    return frozenset("--" + name.replace("_", "-") for name in (*vars(config), *vars(Effort())))


def notebook(run: Run, site: str) -> Section:
    """How to use posterior.nc in a notebook."""
    return Section(
        "notebook",
        "Continue in a notebook",
        "The file posterior.nc holds all draws that this page uses, in ArviZ's schema.",
        code=NOTEBOOK.format(path=run.path / POSTERIOR, site=site),
    )


def some(args: Arguments, count: int) -> Arguments:
    """The first `count` rows of the arguments."""
    return tuple(tensor[:count] for tensor in args)


def write_posterior(run: Run, args: Arguments, effort: Effort):
    """Write posterior.nc atomically, and return the tree opened from it."""
    import xarray

    target = run.path / POSTERIOR
    temporary = target.with_name(f"{POSTERIOR}.tmp")
    attrs = {
        "run_id": run.name,
        "seed": run.config.seed,
        "steps": run.step,
        "elbo": run.config.elbo,
        "dataset": run.job.dataset.name,
    }
    try:
        draw_tree(
            run.job.model,
            run.job.guide,
            args,
            effort.draws,
            path=temporary,
            attrs=attrs,
            seed=effort.seed,
            predictive_draws=effort.predictive_draws,
            prior_draws=effort.predictive_draws,
            event_dims={"x": ("pixel",)} if len(run.job.dataset.shape) == 3 else None,
        ).close()
        os.replace(temporary, target)
    except OSError as error:
        raise RunDirError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return xarray.open_datatree(target, engine="h5netcdf")


def write_pictures(path: Path, drawn: Drawn) -> None:
    """Write every picture as a PNG for light pages, into the folder `diagnostics`."""
    folder = path / PICTURES
    try:
        folder.mkdir(exist_ok=True)
        for name, themes in drawn.items():
            (folder / f"{name}.png").write_bytes(themes[LIGHT.name])
    except OSError as error:
        raise RunDirError(f"cannot write pictures to {folder}: {error.strerror or error}") from None


def numbers(run: Run, effort: Effort, sections: Sequence[Section]) -> str:
    """The contents of diagnostics.json: verdicts and numbers of every section."""
    found = {
        "run": run.name,
        "step": run.step,
        "effort": vars(effort),
        "sections": {s.name: {"numbers": s.numbers, "verdicts": [vars(v) for v in s.verdicts]} for s in sections},
    }
    return json.dumps(plain(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """The value as JSON can hold it; None for numbers that are not finite."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def subtitle(run: Run, points: int) -> str:
    """One line that describes the run."""
    c = run.config
    estimator = f", estimator {c.estimator}" if c.estimator else ""
    rows = f"{points} {'held-out' if run.job.local else 'training'} data points" if points else "no data"
    return (
        f"{place_name(c.model)}{with_title(run.job)} on {run.job.dataset.name}, objective {c.elbo}{estimator}; "
        f"examined on {rows}."
    )
