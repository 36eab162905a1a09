"""Check that a step fits into memory, before anything is allocated: `refuse_too_big(config, x, states, device)`.

The estimate is a lower bound. A run that is refused would have failed; most often the system would have killed it
without a message.
"""

import os
from pathlib import Path

import torch

from pathscore.config import Config
from pathscore.errors import UsageError

GIGABYTE = 1e9


def refuse_too_big(config: Config, x: torch.Tensor, states: int, device: torch.device) -> None:
    """Raise UsageError with the estimate if a step needs more memory than is free.

    x: (N, X) or (N, T, X), the training set. states: joint states that the objective sums over, 1 if it samples.
    """
    rows = min(config.batch_size or 1, len(x))
    need, free = step_bytes(config, rows, x.shape[1:].numel(), states), free_bytes(device)
    if need > free:
        what = f"--batch-size {rows} with --particles {config.particles}"
        summed = f" and {states} joint states" if states > 1 else ""
        raise UsageError(
            f"{what}{summed} needs at least {need / GIGABYTE:.3g} GB a step, and {free / GIGABYTE:.3g} GB are free on "
            f"{device}: lower --batch-size or --particles"
        )


def step_bytes(config: Config, rows: int, width: int, states: int = 1) -> int:
    """The least number of bytes kept for the backward pass, for B = `rows` data points of X = `width` values."""
    values = config.program.kept(config.options, width)
    return rows * (config.particles or 1) * states * values * getattr(torch, config.dtype).itemsize


def free_bytes(device: torch.device) -> int:
    """Bytes that a process can still allocate on the device; for the CPU, in main memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_available(), _group_limit())


def _available() -> int:
    """Bytes that Linux reports as available; on other systems all memory."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _group_limit() -> int:
    """The free bytes under the limit of the control group (of a container), where there is one."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        text = "max"
    return int(text) if text.isdigit() else 2**63
