"""The whole job: `run(config) -> Done` plans, trains, evaluates, draws the pictures, saves, and prints the result.

A run directory holds config.json, metrics.jsonl, checkpoint.pt, summary.json and the pictures. Torch's random streams
and thread count are as before when it ends, so that a notebook or a test can run jobs in a row.
"""

import json
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pathscore.config import Config
from pathscore.evaluation import evaluate
from pathscore.machine.precision import matmul_precision
from pathscore.runs import checkpoint, rundir
from pathscore.runs.assembly import Assembly, assemble, test_set
from pathscore.runs.measuring import finish
from pathscore.runs.pictures import save_pictures
from pathscore.runs.records import Fitted, Training
from pathscore.runs.tracking import Tracker
from pathscore.runs.training import fit


@dataclass(frozen=True)
class Call:
    """What belongs to this call and not to the run: where it reads and writes, and how much it says.

    out: the run directory, None for `runs/<time>-<name>`. resume: the directory to continue, instead.
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


def run(config: Config, call: Call = Call()) -> Done:
    """Do what the configuration says. Raises PathscoreError (one line) or Interrupted."""
    with borrowed_settings():
        return execute(assemble(config), call)


@contextmanager
def borrowed_settings() -> Iterator[None]:
    """Put torch's random streams and thread count back on leaving; inside, a warning is one line."""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.showwarning = one_line
            yield
    finally:
        torch.set_num_threads(threads)


def one_line(message: Warning | str, *_: Any) -> None:
    """Show a warning as errors are shown."""
    tqdm.write(f"pathscore: {' '.join(str(message).split())}", file=sys.stderr)


def execute(job: Assembly, call: Call) -> Done:
    """Train, evaluate and save it."""
    config = job.config
    torch.set_num_threads(config.threads or 1)
    if call.resume is not None:
        directory = Path(call.resume)
    else:
        directory = rundir.create(call.out, f"{Path(job.dataset.name).stem}-{config.latent}-{config.elbo}")
    with checkpoint.lock(directory):
        checkpoint.sweep(directory)
        rundir.write_config(directory, config)
        call.say(heading(job, directory))
        if job.explanation:
            call.say(job.explanation)
        fitted = train(job, directory, call)
        call.say("evaluating")
        with job.svi.scope():
            x_test = test_set(job)
            summary = summarise(job, fitted, x_test)
            save_pictures(directory, job.model, job.guide, x_test, job.dataset.shape, seed=config.seed)
        call.say(finish(job, x_test, directory))
        rundir.write_text(directory / rundir.SUMMARY, json.dumps(finite(summary), indent=2) + "\n")
    print(closing(job, summary, directory))
    return Done(directory, summary)


def train(job: Assembly, directory: Path, call: Call) -> Fitted:
    """The trained run, from the checkpoint of its directory where it is resumed and has one."""
    config = job.config
    training = Training(
        batch_size=config.batch_size or 1,
        steps=job.steps,
        seed=config.seed,
        binarize=config.binarize or "none",
        quiet=call.quiet,
    )
    with matmul_precision(config.matmul_precision):
        fitted = fit(
            job.svi,
            job.dataset.x,
            training,
            run_dir=directory,
            x_valid=job.dataset.x_test,
            kl_weight=job.kl_weight,
            config=vars(config),
            resume=call.resume is not None and checkpoint.exists(directory),
            probe=Tracker(job, config.track_variance, test_set(job)) if config.track_variance else None,
        )
    if fitted.note:
        call.say(fitted.note)
    return fitted


def summarise(job: Assembly, fitted: Fitted, x_test: torch.Tensor) -> dict[str, Any]:
    """What summary.json holds; times in seconds, bounds in nats per datum."""
    config = job.config
    trained = [p for program in (job.model, job.guide) for p in program.parameters() if p.requires_grad]
    return {
        **{name: getattr(config, name) for name in ("elbo", "model", "latent", "layers", "likelihood", "guide")},
        "estimator": config.estimator or "default",
        "particles": config.particles,
        "dataset": job.dataset.name,
        "seed": config.seed,
        "steps": fitted.steps,
        "epochs": fitted.epochs,
        "parameters": sum(p.numel() for p in trained),
        "train_seconds": fitted.seconds,
        "steps_per_second": fitted.steps_per_second,
        "train_elbo": fitted.train_elbo,
        **evaluate(job.model, job.guide, x_test, importance_samples=config.eval_samples or 1, seed=config.seed),
    }


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """The same with null for numbers that JSON has no word for."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def heading(job: Assembly, directory: Path) -> str:
    """What is about to run, in three lines or four."""
    config, data = job.config, job.dataset
    layers = ",".join(map(str, config.layers or ()))
    lines = (
        f"{data.name}: {len(data.x)} + {len(data.x_test)} rows of {data.x.shape[1]} values",
        f"{config.model} with {config.latent} {layers}; {config.elbo}, {config.estimator or 'its own gradient'}, "
        f"K = {config.particles}",
        f"{job.steps} steps on {data.x.device}, threads {config.threads}, in {directory}",
    )
    if job.svi.compiled is not None:
        lines = (*lines, "steps run as one compiled graph, built in the second step (seconds; --compile off: never)")
    return "\n".join(lines)


def closing(job: Assembly, summary: dict[str, Any], directory: Path) -> str:
    """The table of the result and the paths."""
    units = sum(job.config.layers or ())
    rows = {
        "test ELBO": f"{summary['test_elbo']:.2f} ± {summary['test_elbo_se']:.2f} nats",
        f"log p(x) ≥ (K = {summary['test_log_likelihood_samples']})": f"{summary['test_log_likelihood']:.2f} nats",
        "train ELBO": f"{summary['train_elbo']:.2f} nats" if summary["train_elbo"] is not None else "none",
        "rate, distortion": f"{summary['rate']:.2f}, {summary['distortion']:.2f} nats",
        "active units": f"{summary['active_units']} of {units}",
        "training": f"{summary['steps']} steps in {summary['train_seconds']:.1f} s, "
        f"{summary['steps_per_second']:.0f} steps/s",
        "saved in": str(directory),
        "pictures": ", ".join(sorted(path.name for path in directory.glob("*.png"))),
    }
    width = max(map(len, rows))
    return "\n".join(f"  {label:{width}}  {value}" for label, value in rows.items())
