"""Open a run directory for diagnosis: `open_run(path) -> Run`, model and guide with the weights of the last checkpoint.

Nothing of the process changes: initial weights are drawn beside the global random stream, and the programs are to be
run inside `scratch_store()`, a parameter store that is thrown away.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from torch import nn

from pathscore.config import Config
from pathscore.errors import RunDirError
from pathscore.runs import checkpoint, rundir
from pathscore.runs.assembly import Assembly, assemble, test_set
from pathscore.runs.metrics import read_metrics


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
    def held_out(self) -> tuple[torch.Tensor, np.ndarray | None]:
        """All of x_test as the run's own evaluation scores it, (N, X), and its labels."""
        labels = self.job.dataset.labels_test
        return test_set(self.job), None if labels is None else labels.cpu().numpy()


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
    modules = loaded.payload["svi"]["modules"]
    _restore(job.model, modules.get("model"), loaded.path)
    _restore(job.guide, modules.get("guide"), loaded.path)
    step = int(loaded.payload["position"]["step"])
    summary = _json(path / rundir.SUMMARY)
    notes = [loaded.note] if loaded.note else []
    if step < job.steps:
        notes.append(
            f"Training stopped at step {step} of {job.steps}: every figure here is of that state. Continue "
            f"with --resume {path}."
        )
    metrics = read_metrics(path / rundir.METRICS)
    job.model.eval()
    job.guide.eval()
    return Run(path, _without_training_set(job), step, summary, metrics, tuple(notes))


def _without_training_set(job: Assembly) -> Assembly:
    """The job with no rows to train on: nothing here reads them, and they may be most of the memory."""
    empty = replace(job.dataset, x=job.dataset.x[:0].clone(), labels=None)
    return replace(job, dataset=empty)


def _restore(module: nn.Module, state: dict | None, where: Path) -> None:
    try:
        module.load_state_dict(state or {})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunDirError(f"{where} does not fit the run's configuration: {reason}") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def scratch_store() -> Iterator[None]:
    """Run programs without leaving their parameters in Pyro's global store."""
    store = pyro.get_param_store()
    outside = store.get_state()
    store.clear()
    try:
        yield
    finally:
        store.clear()
        store.set_state(outside)
