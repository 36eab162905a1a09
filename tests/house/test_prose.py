"""Words: what was dropped stays out of what a reader sees, and a type that is ignored has a reason beside it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path for pattern in ("*.md", "docs/*.md", "docs/*.in", "notebooks/*.ipynb") for path in ROOT.glob(pattern)]
SOURCES = [path for name in ("pathscore", "models", "guides", "benchmarks") for path in (ROOT / name).rglob("*.py")]

DROPPED = {
    r"\bdatum\b": "data point",
    r"\bwhat-ifs?\b": "counterfactual row, or evaluation",
    r"\b[Hh]eld against\b": "compared with",
    r"\btold apart\b": "significant, or distinguished",
    r"\bclimbs? (the|L_K|a bound)\b": "maximise",
    r"\bdreams?\b": "sleep-phase sample",
    r'"rebuilt"': "reconstruction",
    r"\bno chance\b": "significant",
    r"\bout of reach\b": "not computable",
    r"\bbetter-off\b": "variance-reduced",
}
"""Words that readers stumbled over, and the field's own."""

IGNORE = re.compile(r"#\s*(?:type|pyright): ignore(?:\[[\w, -]+\])?(.*)$", re.MULTILINE)


@pytest.mark.parametrize("word", DROPPED)
def test_a_dropped_word_stays_dropped(word):
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in (*PAGES, *SOURCES)}
    found = [f"{path}: {hit.group()}" for path, text in texts.items() for hit in re.finditer(word, text)]
    assert not found, f"say {DROPPED[word]!r}: {found[:5]}"


def test_a_type_is_ignored_only_with_a_reason():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for hit in IGNORE.finditer(text):
            line = text[: hit.start()].count("\n")
            above = " ".join(text.splitlines()[max(0, line - 2) : line])
            assert "# " in hit.group(1) or "# " in above, f"{path.relative_to(ROOT)}:{line + 1}"


def test_the_patterns_find_what_they_are_for():
    """The planted faults."""
    bad = "per datum, a what-if row held against it, not told apart; θ climbs L_K, a dream of it, by no chance"
    assert sum(bool(re.search(word, bad)) for word in DROPPED) == 7
    assert IGNORE.search("x = y  # type: ignore[arg-type]").group(1) == ""


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
