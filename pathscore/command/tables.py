"""The tables of choices and which of them go together: the verb `list`, and the part of the README made from them.

`tables() -> {title: {name: meaning}}` reads the tables themselves; `objectives()` and `estimators()` are legality
matrices, {row: {column: reason or None}}, None where the pair trains. `pathscore list --markdown` prints what
stands between the two marks in README.md; `python -m pathscore.command.tables README.md` writes it there.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from pathscore.config import Config
from pathscore.data import DATASETS
from pathscore.elbos import ELBOS
from pathscore.errors import UsageError, unknown
from pathscore.estimators import ESTIMATORS
from pathscore.programs.lookup import programs
from pathscore.runs.assembly import settle, why_not

Matrix = dict[str, dict[str, str | None]]

MARKS = ("<!-- tables: python -m pathscore.command.tables README.md -->", "<!-- end of tables -->")


def tables() -> dict[str, dict[str, str]]:
    """Every table of choices: flag → name → one line of meaning."""
    models, guides = programs()
    return {
        "--model": {name: first_sentence(cls) for name, cls in models.MODELS.items()},
        "--latent": {name: first_sentence(cls) for name, cls in models.LATENTS.items()},
        "--likelihood": {name: first_sentence(cls) for name, cls in models.LIKELIHOODS.items()},
        "--trunk": {name: first_sentence(cls) for name, cls in models.TRUNKS.items()},
        "--guide": {name: first_sentence(cls) for name, cls in guides.GUIDES.items()},
        "--elbo": {name: entry.doc for name, entry in ELBOS.items()},
        "--estimator": {name: estimator_line(cls) for name, cls in ESTIMATORS.items()},
        "--dataset": {name: source.doc for name, source in DATASETS.items()},
    }


def first_sentence(cls: type) -> str:
    """The first sentence of a class's docstring, without its full stop."""
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".")


def estimator_line(cls: type) -> str:
    """An estimator's formula, whether it is biased, and its reference."""
    return f"{cls.formula}{'' if cls.unbiased else ' (biased)'}; {cls.reference}"  # type: ignore[attr-defined]


def objectives(config: Config | None = None) -> Matrix:
    """Objective × latent family, for the digits and the defaults (or `config`) otherwise: why each is refused."""
    models, _ = programs()
    base = vars(config or Config())
    return {
        elbo: {
            latent: why_not(settle(Config(**{**base, "elbo": elbo, "latent": latent}), 64, "unit", models), models)
            for latent in models.LATENTS
        }
        for elbo in ELBOS
    }


def estimators() -> Matrix:
    """Estimator × latent family: the reason of each refusal."""
    models, _ = programs()
    sites = {name: family(2, 3)(torch.zeros(1, family(2, 3).raw_size)) for name, family in models.LATENTS.items()}
    refusals = {
        n: {s: cls().refusal(fn, cls.min_particles) for s, fn in sites.items()} for n, cls in ESTIMATORS.items()
    }
    # "disarm needs a bernoulli or onehot site, not normal": row and column say the rest.
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
    """Both legality matrices, by title."""
    return {"--elbo × --latent": objectives(), "--estimator × --latent": estimators()}


def grid(title: str, matrix: Matrix) -> str:
    """A matrix as text: "yes", or the letter of the reason below."""
    letters = footnotes(matrix)
    columns = list(next(iter(matrix.values())))
    width = max(map(len, matrix))
    lines = [title, f"  {'':{width}}  {'  '.join(columns)}"]
    for name, row in matrix.items():
        cells = [f"{letters.get(row[c] or '', 'yes'):{len(c)}}" for c in columns]
        lines.append(f"  {name:{width}}  {'  '.join(cells)}".rstrip())
    return "\n".join([*lines, *(f"  {letter}: {reason}" for reason, letter in letters.items())])


def as_markdown() -> str:
    """The same for the README."""
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
    """Text that cannot end a cell of a Markdown table."""
    return text.replace("|", "\\|")


def write_readme(path: Path) -> None:
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
        print("usage: pathscore list [--markdown]\n\nPrint the tables of choices and which of them go together.")
    else:
        print(as_markdown() if "--markdown" in words else as_text())
    return 0


if __name__ == "__main__":
    write_readme(Path(sys.argv[1]))
