"""Networks as files that load without Pathscore: `export(networks, directory) -> paths`, by `torch.export`."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyro
import torch
from torch import Tensor, nn

from pathscore.errors import RunDirError

SUFFIX = ".pt2"


def export(networks: Mapping[str, tuple[nn.Module, Tensor]], directory: Path) -> list[Path]:
    """Write each network, a module of one tensor whose first axis is free. The example is one such tensor, two rows.

    Raises: RunDirError when a file cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return [_export(module, example, directory / f"{name}{SUFFIX}") for name, (module, example) in networks.items()]
    except OSError as error:
        raise RunDirError(f"cannot write to {directory}: {error.strerror or error}") from None


def _export(module: nn.Module, example: Tensor, path: Path) -> Path:
    rows = torch.export.Dim("rows")
    with unchecked(), torch.no_grad():
        program = torch.export.export(module.eval(), (example,), dynamic_shapes=({0: rows},))
    torch.export.save(program, path)
    return path


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Without the checks of distributions, which read values, and without the notes that torch logs."""
    logger = logging.getLogger("torch.export")
    before, level = torch.distributions.Distribution._validate_args, logger.level
    try:
        logger.setLevel(logging.ERROR)
        with pyro.validation_enabled(False):
            yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)
        logger.setLevel(level)
