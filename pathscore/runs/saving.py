"""A program of your own, saved and loaded: `save(svi, path, x)`, `load(path, model, guide) -> Trained`.

A file holds parameters, buffers, the optimiser's state and a few rows of data, as tensors and plain values: loading it
never runs code. The programs themselves are code: give them to `load` again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pathscore.errors import RunDirError, UsageError
from pathscore.runs.checkpoint import FORMAT, read, sealed
from pathscore.runs.rundir import write_bytes
from pathscore.svi import SVI
from pathscore.trained.forms import tensor_of
from pathscore.trained.trained import Trained

ROWS = 4
"""Rows of data that a file keeps."""


def save(svi: SVI, path: str | Path, x: Any = None) -> Path:
    """Write a trained `SVI` to one file, atomically.

    x: data as the programs are called with, an array or a tuple of arrays; the file keeps its first four rows. A guide
        that makes its parameters when it first runs, such as an autoguide, needs them when it is loaded, and
        `generate` takes its covariates from them.

    Raises: UsageError for an `SVI` that has taken no step, or has an optimiser whose state is kept per tensor;
    RunDirError when the file cannot be written.
    """
    path = Path(path)
    if not svi.steps:
        raise UsageError("save: this SVI has taken no step: train it first")
    rows = () if x is None else tuple(tensor_of(part)[:ROWS] for part in (x if isinstance(x, tuple) else (x,)))
    payload = {"format": FORMAT, "kind": "program", "svi": svi.state_dict(), "rows": rows}
    write_bytes(path, sealed(payload))
    return path


def load(path: str | Path, model: Callable | SVI, guide: Callable | None = None, x: Any = None) -> Trained:
    """What `save` wrote, for the programs that were saved: `load(path, model, guide)`.

    model: or an `SVI` of the programs, with the optimiser and the objective for further steps: `load(path, svi)`.
    x: rows of data, where `save` was not given any. The result encodes, imputes and so on (`Trained`).

    Raises: RunDirError for a file that cannot be read, or was not written by `save`; UsageError for programs that
    differ from those saved, named by parameter.
    """
    path = Path(path)
    try:
        payload = read(path)
    except FileNotFoundError:
        raise RunDirError(f"{path}: there is no such file") from None
    if payload.get("kind") != "program":
        raise RunDirError(f"{path} is the checkpoint of a run: open its directory with pathscore.open_run")
    svi = model if isinstance(model, SVI) else made(model, guide)
    given = None if x is None else tuple(tensor_of(part)[:ROWS] for part in (x if isinstance(x, tuple) else (x,)))
    rows = tuple(payload["rows"]) if given is None else given
    try:
        svi.load_state_dict(payload["svi"], *rows)
    except UsageError as error:
        more = "" if rows else "; an autoguide makes its parameters in its first run: give rows of data, load(…, x=x)"
        raise UsageError(f"{path}: {error}{more}") from None
    return Trained(svi, rows)


def made(model: Callable, guide: Callable | None) -> SVI:
    """An `SVI` that nobody else has, which leaves Pyro's global store alone."""
    if guide is None:
        raise UsageError("load: give model and guide, or an SVI of them")
    return SVI(model, guide, publish=False)
