"""Freed memory that stays with the process: `keep_freed_memory()`.

A step frees its intermediate tensors, megabytes for pictures of 784 pixels. By default glibc hands blocks of that size
back to the kernel and asks for them again in the next step, which costs a page fault for every 4 KB: up to a third of a
step. It stops doing so once it has seen one large block freed.
"""

import torch

KEPT = 31 * 2**20
"""Bytes of the block; glibc learns nothing from blocks of 32 MB and more."""


def keep_freed_memory() -> None:
    """Let the C library keep up to 62 MB of freed memory for the next step, instead of returning it each time.

    Allocates and frees one block without touching it. Has no effect on other C libraries, where it is not needed.
    """
    torch.empty(KEPT, dtype=torch.uint8)
