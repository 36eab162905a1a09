"""A whole run: `run(config) -> Done` assembles, trains, evaluates, draws the pictures, saves, and prints the result.

A run directory holds config.json, metrics.jsonl, checkpoint.pt, summary.json and the pictures. Torch's random streams
and thread count are restored at the end, so that a notebook or a test can run several jobs.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pathscore.config import Config
from pathscore.machine.precision import matmul_precision
from pathscore.programs.entry import Program
from pathscore.programs.lookup import place_name, place_of
from pathscore.runs import checkpoint, rundir
from pathscore.runs.assembly import Assembly, assemble
from pathscore.runs.measuring import finish
from pathscore.runs.metrics import read_metrics
from pathscore.runs.pictures import save_pictures
from pathscore.runs.records import Fitted, Training
from pathscore.runs.summary import closing, finite, heading, summarise
from pathscore.runs.tracking import Tracker
from pathscore.runs.training import fit
from pathscore.runs.verdict import doubts


@dataclass(frozen=True)
class Call:
    """The settings of this call that are not part of the run: its directory, and how much it prints.

    out: the run directory, None for `runs/<time>-<name>`. resume: the directory of a run to continue.
    """

    out: str | None = None
    resume: str | None = None
    quiet: bool = False

    def say(self, text: str) -> None:
        """Print unless the call is quiet."""
        if not self.quiet:
            print(text, flush=True)


@dataclass(frozen=True)
class Done:
    """A finished run: its directory and its summary, as summary.json holds it."""

    directory: Path
    summary: dict[str, Any]

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with one row, indexed by the directory: the summary's figures and choices."""
        import pandas

        plain = {k: v for k, v in self.summary.items() if not isinstance(v, dict | list)}
        return pandas.DataFrame([plain], index=pandas.Index([str(self.directory)], name="run"))

    def _repr_html_(self) -> str:
        rows = {**self.summary, "saved in": self.directory}
        kept = {k: v for k, v in rows.items() if v is not None and v != {} and v != []}
        cells = (f"<tr><td>{escape(str(k))}</td><td>{escape(_short(v))}</td></tr>" for k, v in kept.items())
        return f"<table>{''.join(cells)}</table>"


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def run(config: Config, call: Call | None = None) -> Done:
    """Train, evaluate and save a configured run. Raises PathscoreError (one line) or Interrupted."""
    with borrowed_settings():
        return execute(assemble(config), call or Call())


def train(
    program: Program | str = "vae",
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    quiet: bool = False,
    **choices: Any,
) -> Done:
    """Train, evaluate and save one run, as `pathscore train` does: `train("vae", latent="bernoulli", epochs=5)`.

    program: a name of `--model`, or your own entry that has a name at the top level of a file.
    out: the run directory, `runs/<time>-<name>` if not given. resume: the directory of a run to continue.
    choices: the flags of the command line with "_" for "-". A resumed run keeps its own where they are not given. Sites
        for which no estimator is named have `auto`; estimator="default" is Pyro's own gradient.

    Raises: PathscoreError, one line that names the choice and the remedy.
    """
    if resume is not None:
        config = replace(rundir.read_config(Path(resume)), **choices).validate()
    else:
        word = program if isinstance(program, str) else place_of(program)
        config = Config.from_dict({"model": word, **choices}, "train")
    places = [None if place is None else str(place) for place in (out, resume)]
    return run(config, Call(*places, quiet=quiet))


@contextmanager
def borrowed_settings() -> Iterator[None]:
    """Restore torch's random streams and thread count on leaving; inside, a warning is printed as one line."""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.showwarning = one_line
            yield
    finally:
        torch.set_num_threads(threads)


def one_line(message: Warning | str, *_: Any) -> None:
    """Print a warning in the same form as an error."""
    tqdm.write(f"pathscore: {' '.join(str(message).split())}", file=sys.stderr)


def execute(job: Assembly, call: Call) -> Done:
    """Train, evaluate and save it."""
    config = job.config
    torch.set_num_threads(config.threads or 1)
    directory = Path(call.resume) if call.resume is not None else rundir.create(call.out, name_of(job))
    with checkpoint.lock(directory):
        rundir.sweep(directory)
        rundir.write_config(directory, config)
        call.say(heading(job, directory))
        call.say(job.explanation)
        fitted = fitted_run(job, directory, call)
        call.say("evaluating")
        with job.svi.scope():
            args = job.held_out
            summary = summarise(job, fitted, args)
            summary["doubts"] = doubts(job, summary, read_metrics(directory / rundir.METRICS))
            rundir.write_text(directory / rundir.SUMMARY, json.dumps(finite(summary), indent=2) + "\n")
            try:
                save_pictures(directory, job, args)
                call.say(finish(job, job.examined, directory))
            finally:  # the result is known, whatever becomes of the pictures
                print(closing(job, summary, directory), flush=True)
    for doubt in summary["doubts"]:
        one_line(f"this run is no success: {doubt}")
    return Done(directory, summary)


def name_of(job: Assembly) -> str:
    """The name of a run directory after the time: data, kind of program, objective."""
    program = job.program
    kind = getattr(job.config, program.by) if program.by else place_name(job.config.model)
    return f"{Path(job.dataset.name).stem}-{kind}-{job.config.elbo}".replace(" ", "-")


def fitted_run(job: Assembly, directory: Path, call: Call) -> Fitted:
    """Train the run, from its checkpoint if it is resumed and has one."""
    config = job.config
    training = Training(
        batch_size=config.batch_size or 1,
        steps=job.steps,
        seed=config.seed,
        binarize=config.binarize or "none",
        quiet=call.quiet,
        whole=not job.local,
    )
    with matmul_precision(config.matmul_precision):
        fitted = fit(
            job.svi,
            job.training,
            training,
            run_dir=directory,
            x_valid=job.dataset.arguments(job.program.takes, test=True) if job.local else None,
            kl_weight=job.kl_weight,
            config=vars(config),
            resume=call.resume is not None and checkpoint.exists(directory),
            watch=lambda: watched(job),
            probe=Tracker(job, config.track_variance, job.held_out) if config.track_variance else None,
        )
    if fitted.note:
        call.say(fitted.note)
    return fitted


def watched(job: Assembly) -> dict[str, float]:
    """The figures of the program that are followed during training, at the present parameters."""
    with job.svi.scope():
        return dict(job.program.watched(job.model, job.guide, job.config.options))
