"""The README holds what is true: its tables are current, its commands parse, its notebook example runs."""

import re
import shlex
from pathlib import Path

import pytest

from pathscore.command import tables as matrix
from pathscore.command.arguments import parse
from pathscore.command.cli import VERBS
from pathscore.errors import UsageError
from pathscore.estimators import ESTIMATORS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def commands() -> list[list[str]]:
    lines = [part for block in blocks("bash") for line in block.splitlines() for part in line.split("&&")]
    return [shlex.split(line, comments=True) for line in lines]


def test_the_tables_are_current(tmp_path):
    page = (ROOT / "docs" / "choices.md").read_text(encoding="utf-8")
    copy = tmp_path / "choices.md"
    copy.write_text(page, encoding="utf-8")
    matrix.write_page(copy)
    assert copy.read_text(encoding="utf-8") == page, "run: python -m pathscore.command.tables docs/choices.md"


def test_a_file_without_marks_is_refused(tmp_path):
    (tmp_path / "a.md").write_text("# nothing")
    with pytest.raises(UsageError, match="has no marks"):
        matrix.write_page(tmp_path / "a.md")


def test_it_counts_the_estimators():
    assert f"{len(ESTIMATORS) - 1} estimators" in README  # auto stands for others


def test_every_run_and_verb_of_the_readme_parses():
    runs = [words[words.index("run.py") + 1 :] for words in commands() if "run.py" in words]
    assert len(runs) >= 5
    for words in runs:
        if "--help" not in words:
            parse(words, "run.py")
    verbs = [words[1] for words in commands() if words[:1] == ["pathscore"]]
    assert verbs and set(verbs) <= set(VERBS)


def test_a_flag_that_is_gone_is_caught():
    with pytest.raises(UsageError, match="--elbos"):
        parse(["--elbos", "trace"], "run.py")


def test_the_two_commands_do_all_set_up():
    main, tests = [block.strip() for block in blocks("bash")[:2]]
    set_up = "python3 -m venv .venv && .venv/bin/pip install -e "
    assert main.startswith(set_up) and main.endswith("run.py --elbo tracegraph")
    assert tests.startswith(set_up) and tests.endswith("-m pytest -n auto")


def test_the_examples_train_and_measure(capsys):
    example, own = blocks("python")
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    losses = names["losses"]
    assert sum(losses[-20:]) < sum(losses[:20])
    exec(compile(own, "README.md", "exec"), names)
    table = capsys.readouterr().out
    (line,) = [line for line in table.splitlines() if line.startswith("centred")]
    assert float(line.split()[1]) > 50  # the bias that the page names: 1/K of the gradient


def test_links_lead_to_files_of_the_repository():
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / target).is_file(), target
