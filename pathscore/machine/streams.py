"""Random streams: `read(device) -> dict` and `write(state, device)` torch's own, or draw `beside(device, seed)` them.

Training draws from torch's default generators. Whatever else needs random numbers draws inside `beside`, so that
validating more or less often, or not at all, leaves the trained weights the same, bit for bit.
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
    """Continue from `read`; a state of another kind of device than this one is left out."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type in state and device.type != "cpu":
        _accelerator(device).set_rng_state(state[device.type].cpu(), *_index(device))


@contextmanager
def beside(device: torch.device, *words: Any) -> Iterator[None]:
    """A stream of one's own inside, seeded by `words` if given; the generators are as before on leaving."""
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
