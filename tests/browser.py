"""A headless Chromium driven over the WebDriver protocol, with the standard library alone.

`with browser() as tab:` skips the test, saying why, where no Chromium or chromedriver is installed. `tab.open(path)`,
`tab.run(javascript)`, `tab.screenshot()`, `tab.log(kind)`; `tab.device(width, dark)` sets the width and the theme.
"""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager

import pytest


class Tab:
    """One browser window."""

    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}"
        options = {
            "args": [
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--no-first-run",
            ]
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        answer = self.send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{answer['sessionId']}"

    def send(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]

    def open(self, path):
        self.send("POST", f"{self.session}/url", {"url": path.as_uri()})

    def run(self, script):
        return self.send("POST", f"{self.session}/execute/sync", {"script": script, "args": []})

    def command(self, name, **arguments):
        return self.send("POST", f"{self.session}/goog/cdp/execute", {"cmd": name, "params": arguments})

    def device(self, width, dark):
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self):
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def log(self, kind):
        return self.send("POST", f"{self.session}/se/log", {"type": kind})


@contextmanager
def browser():
    """A tab, closed with its browser at the end."""
    chrome = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    driver = shutil.which("chromedriver")
    if chrome is None or driver is None:
        pytest.skip("no Chromium with chromedriver is installed: the page is not looked at in a real browser")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    tab = None
    try:
        tab = Tab(_port(process))
        yield tab
    finally:
        if tab is not None:
            tab.send("DELETE", tab.session)
        process.terminate()
        process.wait(timeout=20)
        process.stdout.close()


def _port(process):
    """The port that chromedriver chose, from what it prints."""
    deadline = time.monotonic() + 30
    for line in process.stdout:
        if "on port" in line and "successfully" in line:
            return int(line.split("on port")[1].strip(" .\n"))
        if time.monotonic() > deadline:
            break
    raise RuntimeError("chromedriver did not start")
