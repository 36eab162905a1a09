"""Keep freed memory in the process: `keep_freed_memory()`.

A step frees its intermediate tensors, which take megabytes for images of 784 pixels. By default glibc returns blocks of
this size to the kernel and requests them again in the next step. This costs a page fault for every 4 KB, up to a third
of a step. glibc stops doing so after one large block has been freed.
"""

import torch

KEPT = 31 * 2**20
"""Bytes of the block; glibc does not adapt to blocks of 32 MB and more."""


def keep_freed_memory() -> None:
    """Let the C library keep up to 62 MB of freed memory for the next step, instead of returning it each time.

    It allocates and frees one block. It has no effect with other C libraries, which do not need it.
    """
    torch.empty(KEPT, dtype=torch.uint8)
