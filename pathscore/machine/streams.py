"""Random streams: `read(device)`, `write(state, device)`, and `with beside(device, *words)` for a separate stream.

Training draws from torch's default generators. Everything else that needs random numbers draws inside `beside`. The
trained weights are therefore the same bit for bit, however often the run is validated.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def read(device: torch.device) -> dict[str, Tensor]:
    """The state of the CPU's generator and of the device's own, as tensors."""
    state = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = _accelerator(device).get_rng_state(*_index(device))
    return state


def write(state: dict[str, Tensor], device: torch.device) -> None:
    """Restore a state from `read`. The state of a device of another kind is ignored."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type in state and device.type != "cpu":
        _accelerator(device).set_rng_state(state[device.type].cpu(), *_index(device))


@contextmanager
def beside(device: torch.device, *words: Any) -> Iterator[None]:
    """A separate random stream inside the block, seeded by `words` if given. The generators are restored on leaving."""
    kept = read(device)
    try:
        if words:
            seed = int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=8).digest(), "little") >> 1
            torch.default_generator.manual_seed(seed)
            if device.type != "cpu":
                _accelerator(device).manual_seed(seed)
        yield
    finally:
        write(kept, device)


def _accelerator(device: torch.device) -> Any:
    return getattr(torch, device.type)


def _index(device: torch.device) -> tuple:
    return (device,) if device.type == "cuda" else ()
