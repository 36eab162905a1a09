"""Ctrl-C and kill as a wish that the loop looks at between steps: `with caught() as wish: … wish.signal`.

The second signal of a kind ends the process at once, as it would without this. Handlers are put back on leaving; other
threads than the main one cannot set any and get a wish that never comes true.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from signal import SIG_DFL, SIGINT, SIGTERM, Signals, getsignal, signal

SIGNALS = (SIGINT, SIGTERM)


@dataclass
class Wish:
    """The signal that asked the run to stop; None so far."""

    signal: Signals | None = None


class Interrupted(KeyboardInterrupt):
    """A run stopped by a signal, after saving; `exit_code` is 130 for SIGINT and 143 for SIGTERM."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.exit_code = 128 + number


@contextmanager
def caught() -> Iterator[Wish]:
    """Turn SIGINT and SIGTERM into a wish while inside."""
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
