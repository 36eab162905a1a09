"""The page of a run or a comparison: one self-contained HTML file, `render(title, subtitle, sections, footer) -> str`.

Each picture is inlined twice, for light and for dark pages, and the browser chooses by `prefers-color-scheme`. A
content security policy in the page forbids any request. The template is `page.html`.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from pathscore.diagnostics import DIAGNOSTICS
from pathscore.diagnostics.palette import THEMES, figure_of, png
from pathscore.diagnostics.subject import Section
from pathscore.diagnostics.verdicts import Verdict, overall

SUMMARY = {
    "guide": {
        "good": "The guide: no check is flagged. As far as it was checked, it can be used as the posterior.",
        "watch": "The guide: use it as the posterior with care; see the checks that are flagged below.",
        "bad": "The guide: do not use it as the posterior as it is; see the checks that are flagged below.",
        "unknown": "The guide: no check could be computed.",
    },
    "model": {
        "good": "The model: no check is flagged.",
        "watch": "The model: some checks are flagged; see below.",
        "bad": "The model: some checks fail; see below.",
        "unknown": "The model: no check could be computed.",
    },
}

Drawn = Mapping[str, Mapping[str, bytes]]
"""Picture name → palette name → PNG."""


def draw_all(sections: Sequence[Section]) -> Drawn:
    """Every picture of the sections in every palette."""
    pictures = [p for s in sections for p in s.pictures]
    return {p.name: {theme.name: png(figure_of(p.draw(theme))) for theme in THEMES} for p in pictures}


def render(title: str, subtitle: str, sections: Sequence[Section], footer: str, drawn: Drawn | None = None) -> str:
    """The whole page. Pictures are drawn if `drawn` is not given. Every text is escaped.

    A section of which nothing could be computed has a line at the end of the page in place of its own part.
    """
    drawn = draw_all(sections) if drawn is None else drawn
    verdicts = [v for s in sections for v in s.verdicts]
    return _template().render(
        title=title,
        subtitle=subtitle,
        overview=[_overview(about, verdicts) for about in SUMMARY] if verdicts else [],
        sections=[s for s in sections if not _empty(s)],
        reasons=[reason for s in sections if _empty(s) for reason in _reasons(s)],
        drawn=drawn,
        footer=footer,
    )


@cache
def _template() -> Template:
    """page.html; every text that it inserts is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters.update(prose=_prose, code=_code, base64=lambda data: base64.b64encode(data).decode())
    return environment.from_string(files("pathscore.diagnostics").joinpath("page.html").read_text(encoding="utf-8"))


def _prose(value: object) -> Markup:
    """Text with its --flags set as code, so that lines do not break after their hyphens."""
    return Markup(re.sub(r"(?<![\w-])--[a-z][\w-]*( [a-z]+(?=[);,.]))?", r"<code>\g<0></code>", str(escape(value))))


def _code(value: object) -> Markup:
    """Ways to follow an advice, between semicolons, each set as code; no line breaks after the hyphens of a flag."""
    parts = [part.strip() for part in str(value).split(";") if part]
    kinds = [Markup('<code class="flag">{}</code>' if part[:2] == "--" else "<code>{}</code>") for part in parts]
    return Markup("; ").join(kind.format(part) for kind, part in zip(kinds, parts, strict=True))


def _overview(about: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The overall result for guide or model in one sentence, and the flagged checks."""
    own = [v for v in verdicts if v.about == about]
    status = overall(own)
    return {"status": status, "sentence": SUMMARY[about][status], "flagged": [v for v in own if v.flagged]}


def _empty(section: Section) -> bool:
    """Whether a diagnostic found nothing: it shows no table and no picture, and judges nothing."""
    shown = section.tables or section.pictures or section.code or section.notes
    return not shown and all(v.status == "unknown" for v in section.verdicts) and section.name in DIAGNOSTICS


def _reasons(section: Section) -> list[tuple[str, str]]:
    """(check, why it was not computed)."""
    return [(section.title, v.meaning) for v in section.verdicts] or [(section.title, section.intro)]
