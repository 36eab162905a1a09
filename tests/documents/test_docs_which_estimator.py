"""The table of docs/which-estimator.md is what its generator writes from the recorded measurements."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
sys.path.insert(0, str(DOCS))

import which_estimator as generator  # noqa: E402  (docs/ is not a package)


def test_the_table_is_current():
    said = (DOCS / "which-estimator.md").read_text(encoding="utf-8")
    assert said == generator.page(), "run: python docs/which_estimator.py"


def test_the_rule_was_fixed_on_other_programs():
    assert not set(generator.TUNED) & set(generator.PROGRAMS)
