"""The page: one file, everything escaped and inlined, readable in both themes; figures leave no global state."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pathscore.diagnostics import curves, latent_plots, plots
from pathscore.diagnostics.page import render
from pathscore.diagnostics.palette import DARK, LIGHT, panels, png
from pathscore.diagnostics.reliability import curve
from pathscore.diagnostics.subject import Picture, Section, Table
from pathscore.diagnostics.verdicts import judge, not_computed
from pathscore.reports.gradients import read_rows
from pathscore.reports.gradients import section as gradients


def picture(name="p"):
    return Picture(name, "A <title>", 'Alt "text" & more', lambda palette: panels(palette)[1][0])


def sections():
    table = Table(("a", "b"), [("<script>alert(1)</script>", "2")], "caption")
    folded = Table(("k", "v"), [("x", "y")], "all of it", folded=True)
    verdicts = [judge("gap", 0.5), judge("active", 1.0), not_computed("khat", "k-hat", "too few draws")]
    return [
        Section(
            "one", "First & foremost", "intro", verdicts, [table, folded], [picture()], notes=["a note"], code="x < y"
        ),
        Section("two", "Second", ""),
    ]


class Links(HTMLParser):
    """Collects every attribute that could make a browser fetch something, and checks that tags are balanced."""

    def __init__(self):
        super().__init__()
        self.sources, self.open, self.scripts = [], [], 0

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.sources += [v for k, v in attrs if k in ("src", "srcset", "href", "action", "data", "poster") and v]
        if tag not in ("meta", "link", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


def test_the_page_is_one_file_without_links_out():
    page = render("Run <x>", "sub & title", sections(), "foot")
    links = Links()
    links.feed(page)
    assert links.open == [] and links.scripts == 0
    assert links.sources and all(s.startswith(("data:", "#")) for s in links.sources)
    assert "default-src 'none'" in page and 'name="viewport"' in page and "prefers-color-scheme" in page
    assert "<script>" not in page and "Run &lt;x&gt;" in page and "x &lt; y" in page
    assert not re.search(r"https?://", page)


def test_flags_are_set_as_code_and_do_not_break():
    page = render("t", "s", [Section("a", "A", "Try --kl-warmup, or rows (--elbo iwae); a--b is no flag.")], "f")
    assert "<code>--kl-warmup</code>, or rows (<code>--elbo iwae</code>); a--b is" in page


def test_pictures_are_inlined_for_both_themes():
    page = render("t", "s", sections(), "f")
    found = [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)]
    assert len(found) == 2 and all(data.startswith(b"\x89PNG") for data in found)
    assert found[0] != found[1]
    assert 'alt="Alt &#34;text&#34; &amp; more"' in page


def test_verdicts_say_value_threshold_meaning_and_advice():
    page = re.sub("</?code>", "", render("t", "s", sections(), "f"))
    verdict = judge("gap", 0.5)
    for text in (verdict.value, verdict.threshold, verdict.meaning, verdict.advice):
        assert text.replace("&", "&amp;").replace("'", "&#39;") in page
    assert "use it as the posterior with care" in page and "The model: no check is flagged." in page
    assert "too few draws" in page


def test_gradient_rows_are_shown_when_they_are_there(tmp_path):
    assert "pathscore gradients" in gradients(tmp_path).intro
    row = {
        "name": "rloo",
        "unbiased": True,
        "max_abs_z": 2.25,
        "total_variance": 13.0,
        "cosine": None,
        "milliseconds": 0.5,
    }
    (tmp_path / "gradients.json").write_text(json.dumps({"rows": [row]}))
    section = gradients(tmp_path)
    assert section.tables[0].rows == [["rloo", "yes", "2.2", "13", "0.5"]]
    assert [p.name for p in section.pictures] == ["trade-off"] and "estimator" in section.tables[0].header
    for broken in ("{", "[1, 2]", '"text"', '{"estimators": 3}'):
        (tmp_path / "gradients.json").write_text(broken)
        assert read_rows(tmp_path / "gradients.json") == []


RNG = np.random.default_rng(0)
METRICS = [{"step": i, "train_elbo": -30 + i / 10, "seconds": i / 5, "gradient_norm": 1.0 + i} for i in range(1, 30)]
METRICS += [{"step": 30, "end": True, "valid_elbo": -26.0, "gradient_variance": {"rloo": 2.0, "disarm": 1.0}}]
UNIFORM = RNG.uniform(size=(60, 3))
LINES = {"a": (np.arange(5.0), np.arange(5.0) + 1)}
FIGURES = {
    "histogram": lambda p: plots.histogram(p, np.array([0.1, np.inf, 0.3]), "x", (0, 1), 0.7),
    "histogram of nothing": lambda p: plots.histogram(p, np.array([-np.inf, np.nan]), "x"),
    "ecdf": lambda p: plots.ecdf_plot(p, UNIFORM, 1, "z[1]"),
    "coverage": lambda p: plots.coverage_plot(p, [0.5, 0.9], [0.4, 0.8], np.array([0.01, 0.02])),
    "reliability": lambda p: plots.reliability_plot(p, *[curve(RNG.uniform(size=99), RNG.integers(0, 2, 99))] * 2),
    "rootogram": lambda p: plots.rootogram(
        p, RNG.poisson(9, 40), RNG.poisson(9, (5, 40)), RNG.poisson(9, (5, 40)), "n"
    ),
    "rootogram of a constant": lambda p: plots.rootogram(p, np.ones(4), np.ones((2, 4)), np.ones((2, 4)), "n"),
    "gaps": lambda p: plots.gap_plot(p, RNG.normal(size=9), RNG.uniform(size=9)),
    "chains": lambda p: plots.chains_plot(p, RNG.normal(size=9), RNG.uniform(size=9)),
    "grid": lambda p: plots.image_grid(p, RNG.uniform(size=(2, 5, 1, 4, 4)), ("a", "b")),
    "colour grid": lambda p: plots.image_grid(p, RNG.uniform(size=(2, 5, 3, 4, 4))),
    "rate": lambda p: latent_plots.rate_plot(p, RNG.uniform(size=5), np.array([1, 0, 1, 0, 1], bool), "KL"),
    "aggregate": lambda p: latent_plots.aggregate_plot(p, UNIFORM, UNIFORM, ["a", "b", "c"]),
    "constant aggregate": lambda p: latent_plots.aggregate_plot(p, UNIFORM * 0, UNIFORM * 0, ["a", "b", "c"]),
    "discrete aggregate": lambda p: latent_plots.frequency_plot(p, UNIFORM, UNIFORM, ["a", "b", "c"]),
    "heat": lambda p: latent_plots.heat_map(p, UNIFORM, np.arange(60), "units"),
    "embedding": lambda p: latent_plots.embedding_plot(p, UNIFORM[:, :2], np.arange(60) % 3, ("a", "b")),
    "embedding without labels": lambda p: latent_plots.embedding_plot(p, UNIFORM[:, :2], None, ("a", "b")),
    "training": lambda p: curves.training_plot(p, METRICS, "seconds"),
    "comparison": lambda p: curves.comparison_plot(p, {"a": METRICS, "b": []}, "evaluations", {"a": 64.0, "b": 1.0}),
    "several": lambda p: curves.several(p, LINES, "x", "y", log=True),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_can_be_drawn_in_both_themes(name):
    import matplotlib

    before = dict(matplotlib.rcParams)
    light, dark = (png(FIGURES[name](theme).figure) for theme in (LIGHT, DARK))
    assert light.startswith(b"\x89PNG") and light != dark
    assert dict(matplotlib.rcParams) == before


def test_tracked_variance_is_read_by_estimator():
    found = curves.variances(METRICS)
    assert set(found) == {"rloo", "disarm"} and found["rloo"][0].tolist() == [30.0]
    assert curves.variances([{"step": 1}]) == {}
