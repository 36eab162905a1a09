"""The README holds what is true: its tables are current, its commands parse, its notebook example runs."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from pathscore.command import tables as matrix
from pathscore.command.arguments import parse
from pathscore.command.cli import VERBS, main
from pathscore.errors import UsageError
from pathscore.estimators import ESTIMATORS

ROOT = Path(__file__).resolve().parents[2]
MNIST = ROOT.parent / "shared" / "data"
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


SHORT = {
    "train": ["--steps", "2", "--eval-samples", "5", "--quiet"],
    "gradients": ["--replicates", "30", "--warmup", "2"],
    "diagnose": ["--points", "12", "--draws", "20", "--replicates", "20", "--gap-points", "2", "--chain-points", "0"],
    "compare": ["--points", "12", "--samples", "5"],
}
"""Flags that make a command of the README short; of its own words only a length in epochs is left out."""


def short(words: list[str], number: int) -> list[str]:
    """A command of the README as words for `main`, in a folder that holds mine.npz and the runs first and second."""
    if words[0] == "pathscore":
        verb, rest = words[1], words[2:]
    else:
        verb, rest = "train", [*words[words.index("run.py") + 1 :], "--out", f"run-{number}"]
    if "--epochs" in rest:
        del rest[(at := rest.index("--epochs")) : at + 2]
    runs, files = iter(("first", "second")), {"data": str(MNIST), "FILE.npz": "mine.npz"}
    rest = [next(runs) if word == "RUN_DIR" else files.get(word, word) for word in rest]
    return [verb, *rest, *SHORT.get(verb, [])]


def present(words: list[str]) -> bool:
    """Whether this machine has what a command needs: MNIST, or a C++ compiler."""
    return ("mnist" not in words or MNIST.exists()) and ("--compile" not in words or shutil.which("g++") is not None)


@pytest.mark.proof
def test_every_command_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", x=np.random.default_rng(0).normal(size=(40, 6)).astype("float32"))
    for name, seed in (("first", "0"), ("second", "1")):
        own = ["--data", "mine.npz", "--likelihood", "normal", "--layers", "2", "--seed", seed, "--out", name]
        assert main(["train", *own, *SHORT["train"]]) == 0
    ours = [words for words in commands() if words[:1] == ["pathscore"] or "run.py" in words]
    tried = [short(words, i) for i, words in enumerate(ours) if "--help" not in words and present(words)]
    assert len(tried) >= 10
    for words in tried:
        assert main(words) == 0, words


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
