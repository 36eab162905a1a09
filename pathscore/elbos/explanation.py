"""A table that is text, and more: `Explanation(header, lines, below)` prints, shows itself in a notebook, and is data.

It is a `str`, so that it is printed and searched like one; `to_dataframe()` gives the lines, `_repr_html_()` a table.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any


class Explanation(str):
    """Columns of text as wide as they need to be, and a line below them."""

    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    below: str

    def __new__(cls, header: Sequence[str], lines: Sequence[Sequence[str]], below: str) -> Explanation:
        """The text; the parts stay as attributes."""
        found = super().__new__(cls, f"{table(header, lines)}\n{below}")
        found.header, found.lines, found.below = header, lines, below
        return found

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row for each line, indexed by its first column."""
        import pandas

        return pandas.DataFrame(list(self.lines), columns=list(self.header)).set_index(self.header[0])

    def _repr_html_(self) -> str:
        rows = [("th", self.header), *(("td", line) for line in self.lines)]
        cells = ("".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line) for tag, line in rows)
        body = "".join(f"<tr>{line}</tr>" for line in cells)
        return f"<table>{body}</table><p>{html.escape(self.below)}</p>"


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns of text, as wide as they need to be."""
    lines = [header, *lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
