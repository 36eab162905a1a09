"""The tables of choices, and which of them can be combined: the verb `list`, and docs/choices.md.

`tables() -> {title: {name: meaning}}` reads the tables of the code. `objectives()` and `estimators()` are legality
matrices, {row: {column: reason or None}}, with None for a legal pair. `pathscore list --markdown` prints the text
between the two marks in docs/choices.md; `python -m pathscore.command.tables docs/choices.md` writes it there.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pathscore.config import PYROS, config_class
from pathscore.data import DATASETS, Dataset
from pathscore.elbos import ELBOS
from pathscore.errors import UsageError, unknown
from pathscore.estimators import ESTIMATORS, Estimator
from pathscore.programs.entry import Program
from pathscore.programs.lookup import beside
from pathscore.runs.assembly import settle
from pathscore.runs.legality import why_not

Matrix = dict[str, dict[str, str | None]]

MARKS = ("<!-- tables: python -m pathscore.command.tables docs/choices.md -->", "<!-- end of tables -->")

DIGITS = Dataset("digits", "unit", torch.zeros(1, 64), torch.zeros(1, 64), torch.zeros(1), torch.zeros(1), (1, 8, 8))
"""Data with the width and kind of the digits, which determine the defaults."""


def programs() -> dict[str, Program]:
    """Every program of `MODELS`."""
    return {name: listed.load() for name, listed in beside("models").MODELS.items()}


def tables() -> dict[str, dict[str, str]]:
    """Every table of choices: flag → name → one line of meaning."""
    own = [program.tables() for program in programs().values()]
    return {
        "--model": {name: listed.doc for name, listed in beside("models").MODELS.items()},
        **{flag: dict(table) for found in own for flag, table in found.items()},
        "--elbo": {name: entry.doc for name, entry in ELBOS.items()},
        "--estimator": {
            PYROS: "Pyro's own gradient: pathwise where there is a path, else score; names every site at once",
            **{name: estimator_line(cls) for name, cls in ESTIMATORS.items()},
        },
        "--dataset": {name: f"{source.doc}; {' and '.join(source.holds)}" for name, source in DATASETS.items()},
    }


def estimator_line(cls: type[Estimator]) -> str:
    """An estimator's formula, whether it is biased, and its reference."""
    return f"{cls.formula}{'' if cls.unbiased else ' (biased)'}; {cls.reference}"


def objectives(model: str = "vae", **choices: Any) -> Matrix:
    """Objective × column of a program: why each pair is refused, for the digits and the defaults (or `choices`)."""
    program = programs()[model]
    cls = config_class(program.options)

    def reason(elbo: str, changes: Mapping[str, Any]) -> str | None:
        return why_not(settle(cls(**{**choices, "model": model, "elbo": elbo, **changes}), DIGITS))

    return {elbo: {name: reason(elbo, changes) for name, (changes, _) in program.columns().items()} for elbo in ELBOS}


def estimators(model: str = "vae") -> Matrix:
    """Estimator × column of a program: the reason of each refusal."""
    sites = {name: site for name, (_, site) in programs()[model].columns().items()}
    refusals = {
        n: {s: cls().refusal(fn, cls.min_particles) for s, fn in sites.items()} for n, cls in ESTIMATORS.items()
    }
    # "disarm needs a bernoulli or onehot site, not normal": row and column already name the estimator and the family.
    return {
        name: {site: reason and reason.removeprefix(f"{name} ").split(",")[0] for site, reason in row.items()}
        for name, row in refusals.items()
    }


def footnotes(matrix: Matrix) -> dict[str, str]:
    """A letter for each distinct reason of a matrix, in the order of its cells."""
    reasons = dict.fromkeys(reason for row in matrix.values() for reason in row.values() if reason)
    return {reason: chr(ord("a") + index) for index, reason in enumerate(reasons)}


def as_text() -> str:
    """All tables and both matrices for a terminal."""
    parts = []
    for flag, entries in tables().items():
        width = max(map(len, entries))
        parts.append("\n".join([flag, *(f"  {name:{width}}  {meaning}" for name, meaning in entries.items())]))
    return "\n\n".join([*parts, *(grid(title, matrix) for title, matrix in matrices().items())])


def matrices() -> dict[str, Matrix]:
    """Both legality matrices of every program that has columns, by title."""
    found: dict[str, Matrix] = {}
    for name, program in programs().items():
        if program.by:
            found[f"--elbo × --{program.by}"] = objectives(name)
            found[f"--estimator × --{program.by}"] = estimators(name)
    return found


def grid(title: str, matrix: Matrix) -> str:
    """A matrix as text: "yes", or the letter of a reason."""
    letters = footnotes(matrix)
    columns = list(next(iter(matrix.values())))
    width = max(map(len, matrix))
    lines = [title, f"  {'':{width}}  {'  '.join(columns)}"]
    for name, row in matrix.items():
        cells = [f"{letters.get(row[c] or '', 'yes'):{len(c)}}" for c in columns]
        lines.append(f"  {name:{width}}  {'  '.join(cells)}".rstrip())
    return "\n".join([*lines, *(f"  {letter}: {reason}" for reason, letter in letters.items())])


def as_markdown() -> str:
    """All tables and matrices as Markdown, for docs/choices.md."""
    parts = []
    for flag, entries in tables().items():
        rows = [f"| `{name}` | {cell(meaning)} |" for name, meaning in entries.items()]
        parts.append("\n".join([f"| `{flag}` | |", "|---|---|", *rows]))
    for title, matrix in matrices().items():
        letters = footnotes(matrix)
        columns = list(next(iter(matrix.values())))
        rows = [
            f"| `{name}` | {' | '.join(letters.get(row[c] or '', '✓') for c in columns)} |"
            for name, row in matrix.items()
        ]
        notes = "".join(f"\n\n{letter}: {reason}." for reason, letter in letters.items())
        head = f"| {title} | {' | '.join(f'`{c}`' for c in columns)} |"
        parts.append("\n".join([head, "|---" * (len(columns) + 1) + "|", *rows]) + notes)
    return "\n\n".join(parts)


def cell(text: str) -> str:
    """Text in which "|" is escaped, for a cell of a Markdown table."""
    return text.replace("|", "\\|")


def write_page(path: Path) -> None:
    """Put the current tables between the marks of a file. Raises UsageError when it has no marks."""
    text = path.read_text(encoding="utf-8")
    before, opening, rest = text.partition(MARKS[0])
    _, closing, after = rest.partition(MARKS[1])
    if not opening or not closing:
        raise UsageError(f"{path} has no marks for the tables: {MARKS[0]} … {MARKS[1]}")
    path.write_text(f"{before}{MARKS[0]}\n\n{as_markdown()}\n\n{MARKS[1]}{after}", encoding="utf-8")


def main(words: Sequence[str]) -> int:
    """The verb `list`."""
    options = {"--help": "this", "--markdown": "as Markdown"}
    for word in words:
        if word not in options:
            raise unknown("argument of list", word, options)
    if "--help" in words:
        print("usage: pathscore list [--markdown]\n\nPrint all choices, and which of them can be combined.")
    else:
        print(as_markdown() if "--markdown" in words else as_text())
    return 0


if __name__ == "__main__":
    write_page(Path(sys.argv[1]))
