"""A headless Chromium driven over its debugging pipe, with the standard library alone.

`with browser() as tab:` skips the test, saying why, where no Chromium is installed. `tab.open(path)`,
`tab.run(javascript)`, `tab.screenshot()`, `tab.device(width, dark)` sets the width and the theme; `tab.events` keeps
what the browser reported: requests, console messages, errors of scripts and of the page's own policy.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
SETTLED = """new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))
    .then(() => Promise.allSettled([...document.images].map(image => image.decode()))).then(() => null)"""
"""Done when the page has been laid out anew and its pictures, which depend on the theme, have been read."""

PATIENCE = 60
"""Seconds that one answer may take."""


class Tab:
    """One page, and the pipe to its browser: messages are JSON, each ended by a zero byte."""

    def __init__(self, commands, answers):
        self.commands, self.answers = commands, answers
        self.events, self.waiting, self.number, self.session = [], b"", 0, None
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.command(f"{domain}.enable")

    def command(self, name, **arguments):
        self.number += 1
        message = {"id": self.number, "method": name, "params": arguments}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda m: m.get("id") == self.number)
        assert "error" not in answer, f"{name}: {answer['error']}"
        return answer["result"]

    def _until(self, wanted):
        """The first message that is wanted; events on the way are kept."""
        deadline = time.monotonic() + PATIENCE
        while True:
            while b"\0" in self.waiting:
                line, self.waiting = self.waiting.split(b"\0", 1)
                message = json.loads(line)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            ready, _, _ = select.select([self.answers], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self.answers, 1 << 20) if ready else b""
            assert part, "the browser has stopped" if ready else f"the browser has not answered in {PATIENCE} s"
            self.waiting += part

    def open(self, path):
        """Load a file and wait until everything in it has loaded; `events` starts anew."""
        self.events.clear()
        self.command("Page.navigate", url=path.as_uri())
        if not self.named("Page.loadEventFired"):
            self._until(lambda m: m.get("method") == "Page.loadEventFired")

    def run(self, script):
        """The value of a JavaScript expression."""
        answer = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def device(self, width, dark):
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[feature])
        self.run(SETTLED)

    def screenshot(self):
        return base64.b64decode(self.command("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def named(self, *methods):
        """Parameters of the events of these kinds since the page was opened."""
        return [event["params"] for event in self.events if event["method"] in methods]


def chromium():
    """Path of the browser; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed: the page is not looked at in a real browser")
    return found


@contextmanager
def browser():
    """A tab, closed with its browser at the end."""
    chrome = chromium()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process, commands, answers = _start(chrome, profile)
        try:
            yield Tab(commands, answers)
        finally:
            os.close(commands)
            os.close(answers)
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _start(chrome, profile):
    """(process id, where to write commands, where to read answers): Chromium reads descriptor 3 and writes to 4."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (theirs_in, theirs_out)]  # clear of 3 and 4
    wired = [(os.POSIX_SPAWN_DUP2, high[0], 3), (os.POSIX_SPAWN_DUP2, high[1], 4)]
    silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
    words = [chrome, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
    process = os.posix_spawn(chrome, words, os.environ, file_actions=[*silent, *wired])
    for fd in (theirs_in, theirs_out, *high):
        os.close(fd)
    return process, ours_out, ours_in
