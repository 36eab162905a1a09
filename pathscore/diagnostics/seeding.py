"""Random numbers that leave the caller's generator as they found it: `with seeded(seed): …`."""

from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int | None):
    """Draw from a generator seeded with `seed` and give the global one back; with None, draw from the global one."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
