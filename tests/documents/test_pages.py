"""What the pages tell a reader to type is there: names that their Python imports and uses, flags of their commands."""

import ast
import importlib
import re
import shlex
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

from pathscore.command.arguments import parse
from pathscore.command.cli import VERBS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?:^\s*|`)((?:python run\.py|pathscore) [^`\n]*)", re.MULTILINE)


def member(module: str, name: str) -> object:
    """What `from module import name` gives; None where it fails."""
    found = getattr(importlib.import_module(module), name, None)
    if found is None:
        with suppress(ModuleNotFoundError):
            found = importlib.import_module(f"{module}.{name}")
    return found


def missing(source: str) -> list[str]:
    """Names of our packages that a block imports, or reads from an imported module, and that are not there."""
    tree, modules, lost = ast.parse(source), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("pathscore", "models", "guides"):
            found = {alias.asname or alias.name: member(node.module, alias.name) for alias in node.names}
            lost += [f"{node.module}.{name}" for name, value in found.items() if value is None]
            modules |= {name: value for name, value in found.items() if isinstance(value, ModuleType)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            lost += [f"{node.value.id}.{node.attr}"] * (not hasattr(modules[node.value.id], node.attr))
    return lost


def commands(text: str) -> list[list[str]]:
    """The runs and verbs of a page, in words; those with a variable of the shell are left out."""
    text = re.sub(r"```python\n.*?```", "", text, flags=re.DOTALL)
    found = [hit.group(1).split("#")[0].split("&&")[0] for hit in COMMAND.finditer(text)]
    return [shlex.split(line) for line in found if "$" not in line and "…" not in line]


def refuse(words: list[str]) -> None:
    """Raise for a run whose flags do not parse, or for a verb that does not exist."""
    run = words[2:] if words[0] == "python" else words[2:] if words[1] == "train" else None
    if run is None:
        assert words[1] in VERBS or words[1] == "VERB", words
    elif "--help" not in run and "path/to/file.py:MINE" not in run:
        parse(run, "run.py")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_names_and_flags_of_the_pages_exist(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = page.read_text(encoding="utf-8")
    assert [lost for block in re.findall(r"```python\n(.*?)```", text, re.S) for lost in missing(block)] == []
    for words in commands(text):
        refuse(words)


def test_a_name_or_flag_that_is_gone_is_noticed():
    """The planted faults."""
    block = "from pathscore import evaluation\nfrom pathscore.runs.assembly import test_set\nevaluation.nothing(1)"
    assert missing(block) == ["pathscore.runs.assembly.test_set", "evaluation.nothing"]
    assert not commands("with pathscore compare")
    for line in ("`python run.py --elbow trace`", "pathscore train --latent nothing", "pathscore gradient RUN"):
        (words,) = commands(line)
        with pytest.raises((ValueError, AssertionError)):
            refuse(words)
