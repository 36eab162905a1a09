"""What an examination found: `Report`, a sequence of sections that can be printed, shown in a notebook, and saved.

report = examine(model, guide, x)
report.ok                       whether something was judged and nothing is flagged
report                          in a notebook the page, on a terminal a line for each verdict
report.save("report.html")      the page, one file
report.to_dataframe()           a row for each verdict
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from pathscore.diagnostics.subject import Section
from pathscore.diagnostics.verdicts import Verdict, overall
from pathscore.errors import RunDirError

COLUMNS = ("name", "title", "about", "status", "number", "value", "threshold", "meaning", "advice")


@dataclass(frozen=True)
class Report(Sequence[Section]):
    """The sections of an examination, in order; indexed by number or by name of a diagnostic."""

    sections: tuple[Section, ...]
    title: str = "Report"
    subtitle: str = ""
    footer: str = ""

    @overload
    def __getitem__(self, key: int | str) -> Section: ...

    @overload
    def __getitem__(self, key: slice) -> tuple[Section, ...]: ...

    def __getitem__(self, key: Any) -> Any:
        """A section by its place or by its name; KeyError for a name that was not examined."""
        if not isinstance(key, str):
            return self.sections[key]
        found = next((section for section in self.sections if section.name == key), None)
        if found is None:
            raise KeyError(f"{key!r} was not examined: {', '.join(section.name for section in self.sections)}")
        return found

    def __len__(self) -> int:
        return len(self.sections)

    @property
    def verdicts(self) -> list[Verdict]:
        """Those of all sections."""
        return [verdict for section in self.sections for verdict in section.verdicts]

    @property
    def pointwise(self) -> dict[str, np.ndarray]:
        """A number for each data point, (N,): log_likelihood and elbo; elpd of a leave-one-out check. Nats."""
        return {name: values for section in self.sections for name, values in section.pointwise.items()}

    @property
    def ok(self) -> bool:
        """Whether at least one check was computed, and none is flagged."""
        return overall(self.verdicts) == "good"

    def __str__(self) -> str:
        """A line for each verdict: status, title, value; what was not computed last, with the reason."""
        judged = [v for v in self.verdicts if v.status != "unknown"]
        width = max((len(v.title) for v in judged), default=0)
        lines = [f"{v.status:5}  {v.title:{width}}  {v.value}" for v in judged]
        lines += [f"not computed: {v.title}: {v.meaning}" for v in self.verdicts if v.status == "unknown"]
        return "\n".join([self.title, *lines])

    __repr__ = __str__

    def html(self) -> str:
        """The page as text, self-contained."""
        return self._page

    @cached_property
    def _page(self) -> str:
        from pathscore.diagnostics.page import render  # draws with matplotlib

        return render(self.title, self.subtitle, self.sections, self.footer)

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that its style and the notebook's stay apart."""
        page, title = html.escape(self.html()), html.escape(self.title)
        return f'<iframe srcdoc="{page}" style="width:100%;height:40rem;border:0" title="{title}"></iframe>'

    def save(self, path: str | Path) -> Path:
        """Write the page to a file. Raises RunDirError where it cannot be written."""
        path = Path(path)
        try:
            path.write_text(self.html(), encoding="utf-8")
        except OSError as error:
            raise RunDirError(f"cannot write {path}: {error.strerror or error}") from None
        return path

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row for each verdict: section, check, status, number, value, threshold, advice."""
        import pandas

        rows = [
            (section.name, *(getattr(verdict, column) for column in COLUMNS))
            for section in self.sections
            for verdict in section.verdicts
        ]
        return pandas.DataFrame(rows, columns=["section", *COLUMNS])
