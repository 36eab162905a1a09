"""The notebooks run from top to bottom, and what is committed of them is small and of no particular machine."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def text_of(notebook) -> str:
    """Everything printed in a notebook, and the text of tables that are shown; what is no text names itself in <>."""
    return "".join(said(output) for cell in notebook["cells"] for output in cell.get("outputs", []))


def said(output) -> str:
    if output.output_type == "stream":
        return output.text if output.name == "stdout" else ""
    text = output.get("data", {}).get("text/plain", "")
    return "" if text.startswith("<") or "\n" not in text else f"{text}\n"


@pytest.fixture(scope="module")
def ran(kernel):
    """Each notebook by name, run once."""
    done = {}

    def run(path: Path):
        if path.name not in done:
            notebook = nbformat.read(path, as_version=4)
            where = {"metadata": {"path": str(FOLDER)}}
            NotebookClient(notebook, timeout=600, kernel_name=kernel, resources=where).execute()
            done[path.name] = notebook
        return done[path.name]

    return run


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, ran):
    ran(path)  # a cell that raises fails the test


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_small_and_say_nothing_of_the_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 400_000
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs, "run it before committing it"
    assert not any(output.get("name") == "stderr" or output.output_type == "error" for output in outputs)
    for word in ("site-packages", "/home/", "/root/", "/Users/", "/tmp/"):
        assert word not in text


def shape(text: str) -> str:
    """A text without its numbers, the width of its columns, and the estimator that a reference came from.

    The reference is drawn with the estimator of least variance × time, and times differ from run to run.
    """
    text = re.sub(r"further draws of [^(\n]+", "further draws of one ", text)
    return re.sub(r"[#\s]+", " ", re.sub(r"-?\d[\d.,]*(?:e[-+]?\d+)?%?", "#", text)).strip()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_current(path, ran):
    """Titles, columns, rows and sentences are those of a run today; times differ from machine to machine.

    ArviZ's own tables are left out: they differ between its versions.
    """
    saved, now = nbformat.read(path, as_version=4), ran(path)
    for cell, again in zip(saved.cells, now.cells, strict=True):
        if "az.summary" not in cell.source:
            assert shape(text_of({"cells": [cell]})) == shape(text_of({"cells": [again]}))


def test_an_output_of_another_time_is_noticed():
    """The planted fault: a column more."""
    now = "site   rows  a row redraws\nbad  8   nothing\n"
    assert shape(now) == shape("site rows    a row redraws\nbad   16   nothing") != shape("site  rows\nbad    8")
    draws = "reference: mean of 8,000 further draws of {} (exact gradient not computable)"
    assert shape(draws.format("rloo")) == shape(draws.format("y=disarm, z=pathwise"))


def test_the_comparison_is_shown_as_a_picture_too():
    (cell,) = (c for c in nbformat.read(NOTEBOOKS[0], as_version=4).cells if "picture(found)" in c.source)
    assert any("image/png" in output.get("data", {}) for output in cell.outputs)


def test_the_question_is_answered_by_measurement(ran):
    """Nearly all of the score's variance is the height of the cost; with it removed, hundreds of times less is left."""
    said = text_of(ran(FOLDER / "01_how_gradients_pass_a_sample.ipynb"))
    lines = {line[:37].strip(): line[37:].split() for line in said.splitlines() if line[37:].strip()}
    score, height = (
        float(lines[name][0].replace(",", "")) for name in lines if name.startswith(("score function,", "height"))
    )
    best = float(next(v for k, v in lines.items() if k.startswith("score with a perfect"))[0].replace(",", ""))
    assert 0.95 < height / score < 1.05
    assert best < score / 100


def test_each_piece_of_the_answer_has_its_number(ran):
    """The layer written by hand is the pathwise site; the best coefficient is Cov(fs, s) / Var(s) = 4.75; and so on.

    Draws are seeded. Exact values: gradients −4, 0.021 and 1 / β, and a straight-through one of 2(p − 0.45) p (1 − p).
    """
    said = text_of(ran(FOLDER / "01_how_gradients_pass_a_sample.ipynb"))

    def number(words: str) -> float:
        return float(re.search(words + r"\D*?(-?[\d.]+(?:e[-+]\d+)?)", said)[1])

    assert number("largest difference of z") == 0 and number("of a gradient") < 1e-5
    assert number("sample:  requires_grad False[^=]*requires_grad True; dz/dmu =") == 1
    assert number("dz/dsigma =") == number(r"epsilon = \(z - mu\) / sigma =")
    assert number(r"best c\* =") == pytest.approx(4.75, abs=0.02)
    assert number("exact gradient") == -4 and number("path  f.*mean ") == pytest.approx(-4, abs=0.01)
    assert number(r"straight-through") == pytest.approx(2 * (0.3 - 0.45) * 0.3 * 0.7, abs=0.003)
    assert number("rsample ") == number("by the formula ")
    assert number("100,000 paths") == pytest.approx(1 / 1.5, abs=0.01)
