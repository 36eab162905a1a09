"""Words: what was dropped stays out of what a reader sees, and a type that is ignored has a reason beside it."""

import re
from pathlib import Path

import pytest
from layout import modules, room
from prose import prose

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

PLAIN = {
    r"\brebuil[dt]": "reconstruct, reconstruction",
    r"\bclimb": "maximise",
    r"\bl(?:ying|ies) (?:idle|loose)": "unused",
    r"\bstrangers?\b": "user, or what it is",
    r"\ban own\b": "your own",
    r"\bnear miss": "misspelt word",
    r"\bcredited\b": "used, or Rao–Blackwellised",
    r"\bout of reach\b|\bbe told from\b": "not computable, significant",
    r"\b[Ll]eave \S+ away\b": "leave out, remove",
    r"\b(?:[Oo]ne|two|K) \w+ a (?:line|row|run|draw|site|dot|panel|file|key|value|particle|data point|latent)\b": "per",
    r"\b(?:draw|value|row|line|number|step|weight)s a (?:data point|row|step|draw|gradient|site)\b": "per",
    r"\b(?:too|much) (?:bold|timid)\b": "extreme, close to ½",
    r"\bgo(?:es)? on (?:in|with|from)\b": "continue",
    r"\bwhatever (?:its|the) type says\b": "why the type is wrong",
}
"""Further words, for the rooms that have been read from end to end with a stranger's eye."""

READ = {
    *("models", "entries", "guides", "config", "exact", "evaluation", "data", "machine", "programs"),
    *("runs", "reports", "command", "svi"),
}
"""Those rooms, as `layout.room` names them; add yours when you have read it."""

READ_TOO = ("run.py", "benchmarks", "pathscore/diagnostics/sections")
READ_TOO += tuple(f"pathscore/diagnostics/{name}" for name in ("rule.py", "rules.py", "verdicts.py", "page.py"))

IGNORE = re.compile(r"#\s*(?:type|pyright): ignore(?:\[[\w, -]+\])?(.*)$", re.MULTILINE)


@pytest.mark.parametrize("word", DROPPED)
def test_a_dropped_word_stays_dropped(word):
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in (*PAGES, *SOURCES)}
    found = [f"{path}: {hit.group()}" for path, text in texts.items() for hit in re.finditer(word, text)]
    assert not found, f"say {DROPPED[word]!r}: {found[:5]}"


def read_files() -> list[Path]:
    """The files of the rooms that have been read."""
    found = [path for name, path in modules(ROOT).items() if room(name) in READ]
    for name in READ_TOO:
        path = ROOT / name
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return found


@pytest.mark.parametrize("word", PLAIN)
def test_the_pages_stay_plain(word):
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in PAGES}
    found = [f"{path}: {hit.group()}" for path, text in texts.items() for hit in re.finditer(word, text)]
    assert not found, f"say {PLAIN[word]!r}: {found[:5]}"


@pytest.mark.parametrize("word", PLAIN)
def test_the_rooms_that_were_read_stay_plain(word):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {hit.group()}"
        for path in read_files()
        for line, text in prose(path)
        for hit in re.finditer(word, text)
    ]
    assert not found, f"say {PLAIN[word]!r}: {found[:5]}"


def unexplained(text: str) -> list[int]:
    """The lines that ignore a type without a reason: in words behind it, or in a comment on the line above."""
    lines = text.splitlines()
    return [
        number + 1
        for number, line in enumerate(lines)
        if (hit := IGNORE.search(line)) and not hit.group(1).strip(" #")
        if not (number and lines[number - 1].strip().startswith("# "))
    ]


def test_a_type_is_ignored_only_with_a_reason():
    found = {path.relative_to(ROOT): unexplained(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert not {path: lines for path, lines in found.items() if lines}


def test_the_patterns_find_what_they_are_for():
    """The planted faults."""
    bad = "per datum, a what-if row held against it, not told apart; θ climbs L_K, a dream of it, by no chance"
    assert sum(bool(re.search(word, bad)) for word in DROPPED) == 7
    assert unexplained("# why not\n\nx = y  # type: ignore[arg-type]\nf(x)  # pyright: ignore") == [3, 4]
    assert unexplained("# pyro's type is wrong\nx = y  # type: ignore[arg-type]\nf(x)  # type: ignore  # a mixin") == []
    bad = (
        "what is rebuilt, a stranger of that name climbs, an own program with one line a run, with draws a data point; "
        "it lies idle and cannot be told from it, credited, a near miss, much too bold, whatever its type says: "
        "leave it away, it goes on in there"
    )
    assert [word for word in PLAIN if not re.search(word, bad)] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
