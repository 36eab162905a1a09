"""The table of docs/which-estimator.md is what its generator writes from the recorded measurements."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("docs_which_estimator", DOCS / "which_estimator.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_current(generator):
    said = (DOCS / "which-estimator.md").read_text(encoding="utf-8")
    assert said == generator.page(), "run: python docs/which_estimator.py"


def test_the_rule_was_fixed_on_other_programs(generator):
    assert not set(generator.TUNED) & set(generator.PROGRAMS)
