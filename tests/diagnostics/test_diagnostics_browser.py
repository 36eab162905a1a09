"""The page in a real browser: no error, no request, every picture loads, nothing runs off a phone's screen."""

import numpy as np
import pytest
from browser import browser, chromium
from diagnostics_cases import belief_net

from pathscore.command.cli import main
from pathscore.diagnostics import Effort, examine
from pathscore.diagnostics.page import render
from pathscore.reports import compare

IMAGES = "[...document.images].map(i => [i.complete, i.naturalWidth, i.currentSrc.length])"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
PALETTE = "[...document.querySelectorAll('picture img')].map(i => i.currentSrc.slice(-200))"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of a run and the page of a comparison."""
    chromium()  # before the work, not after it
    folder = tmp_path_factory.mktemp("page")
    return {"run": one_run(folder), "comparison": comparison(folder)}


def comparison(folder):
    """Two short runs; their labels are long."""
    words = [
        "--latent",
        "bernoulli",
        "--layers",
        "4",
        "--hidden",
        "8",
        "--steps",
        "40",
        "--eval-samples",
        "5",
        "--quiet",
    ]
    runs = [folder / name for name in ("a", "b")]
    for run, own in zip(runs, (["--estimator", "disarm"], ["--elbo", "vimco", "--particles", "3"]), strict=True):
        assert main(["train", *words, *own, "--out", str(run)]) == 0
    return compare(runs, points=40, samples=10, out=folder).path


def one_run(folder):
    model, guide, x = belief_net(rows=60)
    effort = Effort(draws=60, replicates=100, gap_points=5, gap_steps=5, check_draws=19)
    sections = examine(model, guide, x, effort=effort, labels=np.arange(60) % 4, image_shape=(1, 3, 4), strict=True)
    path = folder / "report é.html"
    path.write_text(render("A run with a rather long name-1234567890-1234567890-1234567890", "what", sections, "foot"))
    return path


@pytest.mark.parametrize(("name", "pictures"), [("run", 9), ("comparison", 4)])
def test_the_page_in_a_real_browser(name, pictures, pages):
    with browser() as tab:
        tab.open(pages[name])
        seen = {}
        for width in (390, 1200):
            for dark in (False, True):
                tab.device(width, dark)
                images = tab.run(IMAGES)
                assert len(images) >= pictures and all(complete and natural > 100 for complete, natural, _ in images)
                assert tab.run(OVERFLOW) <= 0, f"runs off a screen of {width} pixels"
                seen[width, dark] = (tab.run(BACKGROUND), tab.run(PALETTE), tab.screenshot())
        assert seen[390, True][0] != seen[390, False][0]  # the theme is the reader's
        assert seen[390, True][1] != seen[390, False][1]  # and so are the pictures
        assert all(shot.startswith(b"\x89PNG") and len(shot) > 20_000 for _, _, shot in seen.values())
        assert complaints(tab) == []
        assert requests(tab) == {"file"}


def complaints(tab):
    """Console messages, script errors, and what the browser has logged above the level of a remark."""
    logged = [p["entry"] for p in tab.named("Log.entryAdded") if p["entry"]["level"] in ("warning", "error")]
    return [*tab.named("Runtime.consoleAPICalled", "Runtime.exceptionThrown"), *logged]


def requests(tab):
    """Schemes of everything that was asked for and not stopped by the page's own policy."""
    stopped = {p["requestId"] for p in tab.named("Network.loadingFailed") if p.get("blockedReason") == "csp"}
    asked = [p for p in tab.named("Network.requestWillBeSent") if p["requestId"] not in stopped]
    return {p["request"]["url"].split(":")[0] for p in asked} - {"data"}


def test_the_check_finds_a_link_out_and_a_broken_picture(pages, tmp_path):
    # The planted faults: a picture from elsewhere, without the page's own policy against it, and one that is cut short.
    text = pages["run"].read_text()
    policy = text[text.index('<meta http-equiv="Content-Security-Policy"') :].split(">", 1)[0] + ">"
    broken = text.replace(policy, "").replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>')
    path = tmp_path / "broken.html"
    path.write_text(broken)
    with browser() as tab:
        tab.open(path)
        assert "http" in requests(tab)
        assert any(natural == 0 for _, natural, _ in tab.run(IMAGES))
        assert complaints(tab)
        path.write_text(text.replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>'))
        tab.open(path)  # with the policy in place nothing leaves
        assert requests(tab) == {"file"}
