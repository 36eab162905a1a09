"""The words of the source: `prose(path) -> [(line, text)]`, its docstrings, messages and comments."""

import tokenize
from pathlib import Path

KINDS = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
"""Python 3.12 splits f-strings into tokens of their own; before, they are strings."""


def prose(path: Path) -> list[tuple[int, str]]:
    """Every string and comment of a Python file with its first line; any other file as one text."""
    if path.suffix != ".py":
        return [(1, path.read_text(encoding="utf-8"))]
    with path.open("rb") as file:
        return [(token.start[0], token.string) for token in tokenize.tokenize(file.readline) if token.type in KINDS]
