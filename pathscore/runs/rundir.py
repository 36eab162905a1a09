"""Run directories and their configuration.

`create(out, name) -> Path` makes a directory that holds no other run. `write_config` and `read_config` are for its
`config.json`. All raise a RunDirError, one line, if something cannot be made, read or written. Nothing here imports
torch.
"""

import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pathscore.config import PYROS, Config, completed
from pathscore.errors import RunDirError

CONFIG = "config.json"
CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
TEMPORARY = ".tmp"


def create(out: str | None, name: str) -> Path:
    """A new run directory: `out`, or `runs/<time>-<name>`, with a number added where two runs start in one second.

    Raises RunDirError if `out` holds a checkpoint. A run without a checkpoint may be started again.
    """
    if out is not None:
        path = Path(out)
        if (path / CHECKPOINT).exists():
            raise RunDirError(f"--out {out} already holds a run: choose another, or continue it with --resume {out}")
        return make(path)
    stem = Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    path, number = stem, 2
    while True:
        try:
            return make(path, exist_ok=False)  # not `exists` first: another run could make it in between
        except FileExistsError:
            path, number = stem.with_name(f"{stem.name}-{number}"), number + 1


def make(path: Path, exist_ok: bool = True) -> Path:
    """The directory `path`, which is made with its parents if it is missing, and checked to be writable."""
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
        writable = os.access(path, os.W_OK)
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok:
            raise
        raise RunDirError(f"cannot make the run directory {path}: {error.strerror or error}") from None
    if not writable:
        raise RunDirError(f"the run directory {path} is not writable: choose another --out")
    return path


def write_config(path: Path, config: Config) -> None:
    """Write `config.json`. Raises RunDirError when it cannot be written."""
    write_text(path / CONFIG, config.to_json())


def write_text(path: Path, text: str) -> None:
    """Write one file of a run directory atomically. Raises RunDirError when it cannot be written."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write to a temporary name first, then in place of the old file; the temporary file does not outlive a failure."""
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RunDirError(f"cannot write {path}: {error.strerror or error}") from None


def sweep(path: Path) -> list[Path]:
    """Remove and return temporary files that a killed process left. Call it with the directory locked."""
    stale = sorted(path.glob(f"*{TEMPORARY}"))
    for file in stale:
        with suppress(OSError):
            file.unlink()
    return stale


def read_config(path: Path) -> Config:
    """The configuration of the run in directory `path`.

    A run says which estimators it has. Where it does not, it is older than that rule, and they are Pyro's own.
    """
    try:
        text = (path / CONFIG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunDirError(f"{path} is not a run directory: {CONFIG}: {reason}") from None
    config = Config.from_json(text, where=str(path / CONFIG))
    return replace(config, estimator=completed(config.estimator, PYROS))
