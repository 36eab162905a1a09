"""Open a run directory for diagnosis: `open_run(path) -> Run`, model and guide with the weights of the last checkpoint.

Nothing of the process changes: initial weights are drawn beside the global random stream, and the programs are to be
run inside the run's own parameter store, `with run.job.svi.scope(): …`.
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
"""Data points that the programs are run on once, to make the parameters that they make when first run."""


@dataclass(frozen=True)
class Run:
    """A run as it stands: `summary` is empty and `notes` say so when training was stopped before its end."""

    path: Path
    job: Assembly
    step: int
    summary: dict[str, Any]
    metrics: list[dict[str, Any]]
    notes: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        """The run's configuration, every "auto" settled."""
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

    Raises RunDirError when the directory isn't a run, has no readable checkpoint, or one of another program; UsageError
    when the data can't be found.
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
            f"Training stopped at step {step} of {job.steps}: every figure here is of that state. Continue "
            f"with --resume {path}."
        )
    metrics = read_metrics(path / rundir.METRICS)
    for module in job.svi.modules().values():
        module.eval()
    return Run(path, _without_training_set(job), step, summary, metrics, tuple(notes))


def _without_training_set(job: Assembly) -> Assembly:
    """The job with no rows to train on, unless they are what the guide is about: they may be most of the memory."""
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
