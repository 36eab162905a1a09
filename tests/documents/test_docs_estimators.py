"""docs/estimators.md is what its generator writes from the classes and the measurements."""

import importlib.util
import re
from pathlib import Path

import pytest

from pathscore.command.gradients import RunRequest, ToyRequest
from pathscore.command.words import read_words
from pathscore.estimators import ESTIMATORS

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("docs_estimators", DOCS / "estimators.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(generator):
    assert (DOCS / "estimators.md").read_text(encoding="utf-8") == generator.page(), "run: python docs/estimators.py"


def test_every_estimator_and_every_number_is_there(generator):
    page = generator.page()
    assert all(f"### {name}\n" in page and f"[`{name}`](#{name})" in page for name in ESTIMATORS)
    assert not re.search(r"\{[\w-]+:[\w-]+:\w+\}", page), "a number of the guide was not measured"
    assert "**no**" in page


def test_evaluations_are_read_off_the_classes(generator):
    found = {name: generator.evaluations(cls) for name, cls in ESTIMATORS.items()}
    assert found["score"] == "1" and found["disarm"] == "2" and found["rebar"] == "3"
    assert (
        found["local"] == "1 + D"
        and found["measure-valued"] == "1 + 2 D (bernoulli), 1 + 4 D (normal)"
        and found["enum"] == "1 + values of the site"
    )


def test_what_was_measured_agrees_with_what_the_classes_say(generator):
    """Committed measurements: |z| ≤ 4.5 for every unbiased row, beyond it for the biased ones on toys (N ≥ 40 000)."""
    for name in generator.TABLES:
        for row in generator.rows(name):
            exact = (name, row["name"]) == ("toy-square", "reinmax")  # second order suffices for a quadratic cost
            if row["unbiased"] or exact:
                assert row["max_abs_z"] <= 4.5, (name, row["name"])
            elif name.startswith("toy"):
                assert row["max_abs_z"] > 4.5, (name, row["name"])


def test_the_commands_of_the_page_parse(generator):
    for _, words in generator.TABLES.values():
        _, *rest = words.split()
        of_run = not rest[0].startswith("--")
        read_words(rest[1:] if of_run else rest, RunRequest if of_run else ToyRequest)
