"""Checkpoints of a run directory: `save(directory, payload)`, `load(directory) -> Loaded`, `lock(directory)`.

A checkpoint is the output of `torch.save` followed by its sha256. `torch.load(path, weights_only=True)` can read it
too. It is written under a temporary name, synced and renamed, and the previous checkpoint is kept, so there is a good
one after a crash at any moment. Payloads hold only tensors and plain values, so loading never runs code.
"""

import hashlib
import io
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pathscore.config import FREE
from pathscore.errors import RunDirError

CHECKPOINT = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
LOCK = "lock"
MARK = b"\npathscore sha256 "
TAIL = len(MARK) + 64
FORMAT = 1
"""Version of the payload; a reader raises an error for a later one."""


@dataclass(frozen=True)
class Loaded:
    """A payload and its file; `note` says what was wrong with a newer file that was not used."""

    payload: dict[str, Any]
    path: Path
    note: str | None = None


def save(directory: Path, payload: dict[str, Any]) -> Path:
    """Write `checkpoint.pt` to the disk, and keep the previous one as `checkpoint.previous.pt`.

    Raises: RunDirError when it cannot be written; the earlier checkpoints are then unchanged.
    """
    path, temporary = directory / CHECKPOINT, directory / f"checkpoint.{os.getpid()}.tmp"
    try:
        _write_synced(temporary, sealed({"format": FORMAT, **payload}))
        if path.exists():
            os.replace(path, directory / PREVIOUS)
        os.replace(temporary, path)
        _sync_directory(directory)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        kept = "; the last good checkpoint is still there" if exists(directory) else ""
        raise RunDirError(f"cannot write {path}: {error.strerror or error}{kept}") from None
    return path


def load(directory: Path) -> Loaded:
    """The newest good checkpoint, on the CPU.

    Raises: RunDirError, which says what is wrong with each file, when there is none.
    """
    faults = []
    for name in (CHECKPOINT, PREVIOUS):
        path = directory / name
        try:
            payload = read(path)
        except FileNotFoundError:
            continue
        except RunDirError as error:
            faults.append(str(error))
        else:
            note = f"{'; '.join(faults)}: using {path}" if faults else None
            return Loaded(payload, path, note)
    raise RunDirError(
        "; ".join(faults) or f"{directory} holds no {CHECKPOINT}: there is nothing to resume, start a new run"
    )


def read(path: Path) -> dict[str, Any]:
    """The payload of one file. Raises: FileNotFoundError, or RunDirError when the file is damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunDirError(f"cannot read {path}: {error.strerror or error}") from None
    body, tail = data[:-TAIL], data[-TAIL:]
    if tail != MARK + hashlib.sha256(body).hexdigest().encode():
        raise RunDirError(f"{path} is damaged: its sha256 does not match")
    try:
        payload = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise RunDirError(f"{path} holds more than tensors and plain values: {str(error).splitlines()[0]}") from None
    if not isinstance(payload, dict) or payload.get("format", FORMAT + 1) > FORMAT:
        raise RunDirError(f"{path} was written by a later version: update pathscore")
    return payload


def require_same_config(loaded: Loaded, config: dict[str, Any]) -> None:
    """Raise RunDirError, which names the flag, if the checkpoint's configuration differs in a key outside `FREE`."""
    saved = loaded.payload["config"]
    for key in sorted(saved.keys() & config.keys() - set(FREE)):
        before, now = (list(v) if isinstance(v, tuple) else v for v in (saved[key], config[key]))
        if before != now:
            flag = f"--{key.replace('_', '-')}"
            raise RunDirError(f"{loaded.path} was made with {flag} {before}, this run has {now}: make them equal")


def exists(directory: Path) -> bool:
    """Whether there is a checkpoint, good or damaged."""
    return (directory / CHECKPOINT).exists() or (directory / PREVIOUS).exists()


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Lock a run directory inside the block. The system releases the lock when the process ends, even if it is killed.

    Raises: RunDirError at once when another process has the lock, or the directory cannot be written.
    """
    import fcntl

    try:
        handle = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunDirError(f"cannot lock {directory}: {error.strerror or error}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(handle, 20).decode(errors="replace").strip()
        os.close(handle)
        raise RunDirError(
            f"process {owner or '?'} is using {directory}: wait for it, or choose another --out"
        ) from None
    try:
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def sealed(payload: dict[str, Any]) -> bytes:
    """The bytes of a payload with their sha256."""
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    body = buffer.getvalue()
    return body + MARK + hashlib.sha256(body).hexdigest().encode()


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
