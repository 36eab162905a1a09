"""Run the diagnostics: on any pair (`examine`), or on a run directory, with files and a page (`diagnose`).

`examine(model, guide, x) -> [Section]`; `diagnose(run_dir) -> Path` of report.html. One diagnostic that can't be
computed says why in its section and leaves the others alone.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pathscore.diagnostics import DIAGNOSTICS, Diagnostic
from pathscore.diagnostics.arviz import to_arviz
from pathscore.diagnostics.page import Drawn, draw_all, render
from pathscore.diagnostics.palette import LIGHT
from pathscore.diagnostics.runs import Run, open_run
from pathscore.diagnostics.sections import gradients, training
from pathscore.diagnostics.subject import Effort, Section, Subject
from pathscore.diagnostics.verdicts import not_computed
from pathscore.errors import PathscoreError, RunDirError, unknown
from pathscore.rundir import write_text

POSTERIOR, PAGE, NUMBERS, PICTURES = "posterior.nc", "report.html", "diagnostics.json", "diagnostics"


def examine(
    model: Callable,
    guide: Callable,
    x,
    *,
    names: Sequence[str] | None = None,
    effort: Effort | None = None,
    labels: np.ndarray | None = None,
    image_shape: tuple[int, ...] | None = None,
    strict: bool = False,
) -> list[Section]:
    """Diagnose any Pyro model/guide pair on data x (a tensor, or a tuple of program arguments).

    `names`: entries of DIAGNOSTICS, all by default; `strict`: raise what a diagnostic raises instead of noting it.
    Look at `section.verdicts` and `verdict.flagged`.
    """
    effort = effort or Effort()
    args = x if isinstance(x, tuple) else (x,)
    tree = to_arviz(model, guide, args, effort.draws, prior_draws=0, predictive_draws=0, seed=effort.seed)
    return sections_of(Subject(model, guide, args, tree, effort, labels, image_shape), names, strict)


def sections_of(
    subject: Subject, names: Sequence[str] | None, strict: bool, progress: Callable[[str], None] = lambda name: None
) -> list[Section]:
    """The sections of the chosen diagnostics, in the order of the table."""
    chosen = list(DIAGNOSTICS) if names is None else list(names)
    for name in chosen:
        if name not in DIAGNOSTICS:
            raise unknown("diagnostic", name, DIAGNOSTICS)
    found = []
    for name in chosen:
        progress(name)
        found.append(_attempt(DIAGNOSTICS[name], subject, strict))
    return found


def _attempt(diagnostic: Diagnostic, subject: Subject, strict: bool) -> Section:
    """One section, or one that says why there is none: a page with a hole is worth more than no page."""
    try:
        return diagnostic(subject)
    except PathscoreError as error:
        if strict:
            raise
        reason = str(error)
    except Exception as error:  # a program of the user's that some check can't run, in whatever way
        if strict:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return Section(
        diagnostic.name,
        diagnostic.doc[0].upper() + diagnostic.doc[1:],
        "",
        [not_computed(diagnostic.name, diagnostic.name, reason)],
    )


def diagnose(
    run_dir: str | Path,
    *,
    names: Sequence[str] | None = None,
    effort: Effort | None = None,
    strict: bool = False,
    progress: Callable[[str], None] = lambda name: None,
) -> Path:
    """Diagnose a run on its held-out data and write posterior.nc, diagnostics.json, pictures and report.html into it.

    Returns the path of the page. Raises RunDirError for a directory that holds no run, NumericsError when the
    weights of its checkpoint don't give finite draws, UsageError for unknown names.
    """
    run = open_run(run_dir)
    effort = effort or Effort()
    x, labels = run.held_out
    x, labels = x[: effort.points], None if labels is None else labels[: effort.points]
    with run.job.svi.scope():
        progress("posterior.nc")
        tree = write_posterior(run, x, labels, effort)
        try:
            subject = Subject(run.job.model, run.job.guide, (x,), tree, effort, labels, run.job.dataset.shape)
            sections = [
                training.section(run),
                gradients.section(run.path),
                *sections_of(subject, names, strict, progress),
            ]
        finally:
            tree.close()
    progress("report.html")
    drawn = draw_all(sections)
    write_pictures(run.path, drawn)
    write_text(run.path / NUMBERS, numbers(run, effort, sections))
    write_text(run.path / PAGE, render(f"Run {run.name}", subtitle(run, len(x)), sections, footer(effort), drawn))
    return run.path / PAGE


def write_posterior(run: Run, x: torch.Tensor, labels: np.ndarray | None, effort: Effort):
    """posterior.nc, put in place whole; returns the tree opened from it."""
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
        to_arviz(
            run.job.model,
            run.job.guide,
            x,
            effort.draws,
            path=temporary,
            attrs=attrs,
            seed=effort.seed,
            predictive_draws=effort.predictive_draws,
            prior_draws=effort.predictive_draws,
            event_dims={"x": ("pixel",)},
        ).close()
        os.replace(temporary, target)
    except OSError as error:
        raise RunDirError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return xarray.open_datatree(target, engine="h5netcdf")


def write_pictures(path: Path, drawn: Drawn) -> None:
    """Every picture as a PNG for light pages, in the folder `diagnostics`."""
    folder = path / PICTURES
    try:
        folder.mkdir(exist_ok=True)
        for name, themes in drawn.items():
            (folder / f"{name}.png").write_bytes(themes[LIGHT.name])
    except OSError as error:
        raise RunDirError(f"cannot write pictures to {folder}: {error.strerror or error}") from None


def numbers(run: Run, effort: Effort, sections: Sequence[Section]) -> str:
    """diagnostics.json: verdicts and numbers of every section."""
    found = {
        "run": run.name,
        "step": run.step,
        "effort": vars(effort),
        "sections": {s.name: {"numbers": s.numbers, "verdicts": [vars(v) for v in s.verdicts]} for s in sections},
    }
    return json.dumps(_plain(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Numbers that JSON can hold; null for what isn't finite."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def subtitle(run: Run, points: int) -> str:
    """One line: what was run."""
    c = run.config
    estimator = f", estimator {c.estimator}" if c.estimator else ""
    return (
        f"{c.model} with {c.latent} latents {','.join(map(str, c.layers or ()))} on {run.job.dataset.name}, "
        f"objective {c.elbo}{estimator}; examined on {points} held-out data points."
    )


def footer(effort: Effort) -> str:
    """What was computed, for whoever wants to repeat it."""
    return "Settings: " + ", ".join(f"{k} = {v}" for k, v in vars(effort).items()) + "."
