"""What the verbs about runs share: the names of parts as they begin, and the number of threads."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def progress_lines(quiet: bool) -> Callable[[str], None]:
    """Names of the parts as they begin, on a terminal."""
    if quiet or not sys.stderr.isatty():
        return lambda name: None
    return lambda name: print(f"  {name} …", file=sys.stderr, flush=True)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch's thread count inside, put back afterwards: small models are fastest on one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
