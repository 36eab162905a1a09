"""Open a run directory for diagnosis: `open_run(path) -> Run`, model and guide with the weights of the last checkpoint.

It does not change the process: initial weights are drawn in a separate random stream. Run the programs inside the run's
own parameter store: `with run.job.svi.scope(): …`.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pathscore.config import Config
from pathscore.errors import RunDirError, UsageError
from pathscore.runs import checkpoint, rundir
from pathscore.runs.assembly import Assembly, assemble
from pathscore.runs.metrics import read_metrics

ROWS = 4
"""Number of data points of the first run of the programs, which makes their parameters."""


@dataclass(frozen=True)
class Run:
    """A run. If training was stopped before its end, `summary` is empty and `notes` say so."""

    path: Path
    job: Assembly
    step: int
    summary: dict[str, Any]
    metrics: list[dict[str, Any]]
    notes: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        """The run's configuration, with values for every "auto"."""
        return self.job.config

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.path.resolve().name

    @property
    def labels(self) -> np.ndarray | None:
        """The labels of the held-out rows, (N,)."""
        labels = self.job.dataset.labels_test if self.job.local else None
        return None if labels is None else labels.cpu().numpy()


def open_run(path: str | Path) -> Run:
    """Read configuration, data and the newest good checkpoint.

    Raises RunDirError when the directory is not a run, or has no readable checkpoint of this program; UsageError when
    the data cannot be found.
    """
    path = Path(path)
    config = rundir.read_config(path)
    loaded = checkpoint.load(path)
    with torch.random.fork_rng():
        job = assemble(config)
    try:
        job.svi.load_state_dict(loaded.payload["svi"], *(tensor[:ROWS] for tensor in job.held_out))
    except UsageError as error:
        raise RunDirError(f"{loaded.path} does not fit the run's configuration: {error}") from None
    step = int(loaded.payload["position"]["step"])
    summary = _json(path / rundir.SUMMARY)
    notes = [loaded.note] if loaded.note else []
    if step < job.steps:
        notes.append(
            f"Training stopped at step {step} of {job.steps}: all figures here describe that state. Continue "
            f"with --resume {path}."
        )
    metrics = read_metrics(path / rundir.METRICS)
    for module in job.svi.modules().values():
        module.eval()
    return Run(path, _without_training_set(job), step, summary, metrics, tuple(notes))


def _without_training_set(job: Assembly) -> Assembly:
    """The job without the training rows, to save memory, unless the guide describes the training set."""
    if not job.local:
        return job
    empty = replace(job.dataset, x=job.dataset.x[:0].clone(), labels=None)
    return replace(job, dataset=empty)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
