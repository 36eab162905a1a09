"""Helpers of the verbs about runs: progress lines, and the number of threads."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def progress_lines(quiet: bool) -> Callable[[str], None]:
    """A function that prints the name of each part when it begins, on a terminal."""
    if quiet or not sys.stderr.isatty():
        return lambda name: None
    return lambda name: print(f"  {name} …", file=sys.stderr, flush=True)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set torch's thread count inside the block, and restore it afterwards. Small models are fastest on one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
