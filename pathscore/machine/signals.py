"""Ctrl-C and kill as a request that the training loop reads between steps: `with caught() as wish: … wish.signal`.

A second signal of the same kind ends the process at once, as usual. The former handlers are restored on leaving. Only
the main thread can set handlers; in another thread `wish.signal` stays None.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from signal import SIG_DFL, SIGINT, SIGTERM, Signals, getsignal, signal

SIGNALS = (SIGINT, SIGTERM)


@dataclass
class Wish:
    """The signal that asked the run to stop, or None."""

    signal: Signals | None = None


class Interrupted(KeyboardInterrupt):
    """A run stopped by a signal, after saving; `exit_code` is 130 for SIGINT and 143 for SIGTERM."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.exit_code = 128 + number


@contextmanager
def caught() -> Iterator[Wish]:
    """Catch SIGINT and SIGTERM inside the block, and remember them."""
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {int(number): getsignal(number) for number in SIGNALS}

    def remember(number: int, frame: object) -> None:
        wish.signal = Signals(number)
        signal(number, before[number] or SIG_DFL)

    for number in SIGNALS:
        signal(number, remember)
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal(number, handler or SIG_DFL)
