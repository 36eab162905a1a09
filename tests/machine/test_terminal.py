"""Terminals that cannot show every character: nothing ends a run, and nothing becomes a question mark."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pathscore.command.cli import VERBS
from pathscore.machine import terminal

ROOT = Path(__file__).resolve().parents[2]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    env = {**os.environ, **ASCII, "PYTHONPATH": str(ROOT)}
    words = (sys.executable, "-m", "pathscore", *words)
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, timeout=600)


def test_a_run_ends_well_on_an_ascii_terminal(tmp_path):
    done = run(
        "train", "--steps", "3", "--layers", "2", "--hidden", "4", "--eval-samples", "5", "--out", "run", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("ascii")
    assert "x best" in text and "+-" in text and "log p(x) >= (K = 5)" in text and "?" not in text


@pytest.mark.parametrize(
    "words", [["--help"], *([verb, "--help"] for verb in VERBS), ["list"], ["train", "--latent", "ö"]]
)
def test_helps_tables_and_errors_are_shown_there(words, tmp_path):
    done = run(*words, cwd=tmp_path)
    assert done.returncode in (0, 2)
    assert b"Traceback" not in done.stderr and (done.stdout + done.stderr).decode("ascii")


def test_no_character_that_we_print_becomes_a_question_mark():
    sources = [path for room in ("pathscore", "models", "guides") for path in (ROOT / room).rglob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in sources]
    lost = {char for text in texts for char in text if terminal.plain(char) == "?" != char}
    assert not lost, f"give {sorted(lost)} a plain form in machine/terminal.py"


def test_the_streams_are_left_as_they_were(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with terminal.plain_where_needed():
        print("2 × ½ ± 0.1 → φ")
    assert stream.errors == "strict"
    stream.flush()
    assert stream.buffer.getvalue().decode().strip() == "2 x 1/2 +- 0.1 -> phi"
    with pytest.raises(UnicodeEncodeError):
        print("×")
