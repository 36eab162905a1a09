"""Open a run directory: `open_run(path) -> Run`, model and guide with the weights of the last checkpoint.

    run = pathscore.open_run("runs/digits")
    run.encode(x), run.impute(x, mask), run.generate(16), …        the methods of `pathscore.trained.trained.Uses`
    run.model, run.guide, run.config, run.summary, run.metrics     what the directory holds

It does not change the process: initial weights are drawn in a separate random stream.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pathscore.config import Config
from pathscore.data import binarize
from pathscore.data.values import refuse_not_finite
from pathscore.errors import DataError, RunDirError, UsageError
from pathscore.programs.lookup import place_name
from pathscore.runs import checkpoint, rundir
from pathscore.runs.assembly import Assembly, assemble
from pathscore.runs.metrics import read_metrics
from pathscore.svi import SVI
from pathscore.trained.forms import FORMS, form_of, tensor_of
from pathscore.trained.trained import Args, Uses

ROWS = 4
"""Number of data points of the first run of the programs, which makes their parameters."""


@dataclass(frozen=True, repr=False)
class Run(Uses):
    """A run. If training was stopped before its end, `summary` is empty and `notes` say so.

    lines: those of metrics.jsonl. job: everything that the run was assembled from, for those who need the internals.
    """

    path: Path
    job: Assembly
    step: int
    summary: dict[str, Any]
    lines: list[dict[str, Any]]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        config = self.config
        what = f"{place_name(config.model)} on {self.job.dataset.name}, objective {config.elbo}, step {self.step}"
        return f"Run({str(self.path)!r}: {what})"

    @property
    def config(self) -> Config:
        """The run's configuration, with values for every "auto"."""
        return self.job.config

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.path.resolve().name

    @property
    def metrics(self) -> Any:
        """metrics.jsonl as a pandas DataFrame, indexed by step: ELBO in nats, gradient norm, learning rate, seconds."""
        import pandas

        table = pandas.DataFrame(self.lines)
        return table.set_index("step") if "step" in table else table

    @property
    def labels(self) -> np.ndarray | None:
        """The labels of the held-out rows, (N,)."""
        labels = self.job.dataset.labels_test if self.job.local else None
        return None if labels is None else labels.cpu().numpy()

    @property
    def x_test(self) -> Tensor:
        """The held-out data as the program takes them, (N, X), binarised as the run's validation has them.

        Raises: UsageError for a program without data.
        """
        if not self.job.training:
            raise UsageError(f"{self.path}: this program takes no data")
        return self.job.held_out[0]

    @property
    def svi(self) -> SVI:
        """The `SVI` that holds the parameters."""
        return self.job.svi

    @property
    def pair(self) -> tuple[Callable, Callable]:
        return self.job.model, self.job.guide

    @property
    def example(self) -> Args:
        return self.job.held_out if self.job.local else self.job.training

    def binarized(self, x: Any) -> Any:
        """Grey values in [0, 1] as the zeros and ones that the run was trained on; as they are for other runs."""
        mode = self.config.binarize or "none"
        rows = tensor_of(x).to(self.svi.device(), torch.get_default_dtype())
        drawn = binarize(rows.flatten(1), "static" if mode == "dynamic" else mode, self.config.seed)
        return FORMS[form_of(x)](drawn, ("data", "x"))

    def accept(self, args: Args) -> Args:
        """The arguments of a call: rows of the width of the run's data, or of their layout (H, W), which are flattened.

        Raises: UsageError for another number of arguments, another shape, or values of another kind.
        """
        expected = self.example
        if len(args) != len(expected):
            raise UsageError(f"this program takes {len(expected)} arrays, and got {len(args)}: give a tuple of them")
        if not args:
            return args
        x = self._flat(args[0], expected[0].shape[1:])
        refuse_not_finite("x", x.flatten(1) if x.dim() > 1 else x[:, None])
        if self._zeros_and_ones and (bad := (x != 0) & (x != 1)).any():
            raise DataError(
                f"x holds {x[bad][0].item():g}, and this run was trained on zeros and ones: pass run.binarized(x)"
            )
        return (x, *args[1:])

    def networks(self) -> dict[str, tuple[nn.Module, Tensor]]:
        return dict(self.job.program.networks(*self.pair)) or super().networks()

    def _flat(self, x: Tensor, shape: torch.Size) -> Tensor:
        layouts = {tuple(shape), self.job.dataset.shape, self.job.dataset.shape[-2:]}
        if tuple(x.shape[1:]) not in layouts:
            rows = ", ".join(["N", *map(str, shape)])
            remedy = "pass x[None] for one data point" if x.shape == shape else f"give x ({rows})"
            raise UsageError(f"x has shape {tuple(x.shape)}, and this run takes rows of {tuple(shape)}: {remedy}")
        return x.reshape(len(x), *shape)

    @property
    def _zeros_and_ones(self) -> bool:
        return (self.config.binarize or "none") != "none" or self.job.dataset.kind == "binary"


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
    lines = read_metrics(path / rundir.METRICS)
    for module in job.svi.modules().values():
        module.eval()
    return Run(path, _without_training_set(job), step, summary, lines, tuple(notes))


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
