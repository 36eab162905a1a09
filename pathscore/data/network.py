"""Downloads with time limits: `with download_from(urls, what): …`.

torchvision's downloads have no time limit, so a machine without a network would wait for minutes. This context tries a
connection first, and sets a limit on the time that a download may stand still.
"""

import queue
import socket
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

ANSWER_SECONDS = 0.5
"""Seconds that a server may take to accept a connection."""

STALL_SECONDS = 20.0
"""Seconds that a running download may stand still."""


class Unreachable(Exception):
    """A file is missing and cannot be downloaded. The message says which, where and why."""


def answers(urls: Sequence[str], seconds: float = ANSWER_SECONDS) -> bool:
    """Whether the server of any of `urls`, or the proxy that leads to it, accepts a connection within `seconds`.

    The host names are looked up in threads that are not joined, because a name lookup has no time limit.
    """
    results: queue.Queue[bool] = queue.Queue()
    proxies = urllib.request.getproxies()

    def connect(url: str) -> None:
        address = urlsplit(proxies.get(urlsplit(url).scheme, url))
        port = address.port or {"https": 443}.get(address.scheme, 80)
        try:
            socket.create_connection((address.hostname or "", port), timeout=seconds).close()
            results.put(True)
        except OSError:
            results.put(False)

    for url in urls:
        threading.Thread(target=connect, args=(url,), daemon=True).start()
    try:
        return any(results.get(timeout=seconds) for _ in urls)
    except queue.Empty:
        return False


@contextmanager
def download_from(urls: Sequence[str], what: str) -> Iterator[None]:
    """A context for a download from `urls`. Raises `Unreachable` when no server answers or the download fails.

    `what` says what is missing; the error message begins with it. Without `urls` no network is needed.
    """
    if urls and not answers(urls):
        raise Unreachable(f"{what}, and no server to download it from answered within {ANSWER_SECONDS} s")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise Unreachable(f"{what}, and the download broke off ({reason[0]})") from error
    finally:
        socket.setdefaulttimeout(before)
