"""The page of a run or a comparison: one self-contained HTML file, `render(title, subtitle, sections, footer) -> str`.

Each picture is inlined twice, for light and for dark pages, and the browser chooses by `prefers-color-scheme`. A
content security policy in the page forbids any request. The template is `page.html`.
"""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template

from pathscore.diagnostics.palette import DARK, LIGHT, THEMES, figure_of, png
from pathscore.diagnostics.subject import Picture, Section, Table
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
    """The whole page. Pictures are drawn if `drawn` is not given. Every text is escaped."""
    drawn = draw_all(sections) if drawn is None else drawn
    frame = Template(files("pathscore.diagnostics").joinpath("page.html").read_text(encoding="utf-8"))
    verdicts = [v for s in sections for v in s.verdicts]
    return frame.substitute(
        title=_text(title),
        subtitle=_text(subtitle),
        overview=_overview(verdicts) if verdicts else "",
        contents=" ".join(f'<a href="#{_text(s.name)}">{_text(s.title)}</a>' for s in sections),
        body="\n".join(_section(s, drawn) for s in sections),
        footer=_text(footer),
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _prose(value: object) -> str:
    """Escaped text with its --flags set as code, so that lines do not break after their hyphens."""
    return re.sub(r"(?<![\w-])--[a-z][\w-]*( [a-z]+(?=[);,.]))?", r"<code>\g<0></code>", _text(value))


def _overview(verdicts: Sequence[Verdict]) -> str:
    """The overall result for guide and model, one sentence each, and the flagged checks."""
    lines = []
    for about, sentences in SUMMARY.items():
        own = [v for v in verdicts if v.about == about]
        status = overall(own)
        items = "".join(
            f'<li class="{v.status}"><span class="chip">{v.status}</span>{_text(v.title)}: '
            f'<span class="value">{_text(v.value)}</span></li>'
            for v in own
            if v.flagged
        )
        lines.append(
            f'<p class="{status}"><span class="chip">{status}</span>{_text(sentences[status])}</p>'
            + (f'<ul class="verdicts">{items}</ul>' if items else "")
        )
    return "".join(lines)


def _section(section: Section, drawn: Drawn) -> str:
    parts = [
        f'<section id="{_text(section.name)}"><h2>{_text(section.title)}</h2>',
        f"<p>{_prose(section.intro)}</p>" if section.intro else "",
        *(f"<p><strong>{_prose(note)}</strong></p>" for note in section.notes),
        _verdicts(section.verdicts),
        *map(_table, section.tables),
        f"<pre>{_text(section.code)}</pre>" if section.code else "",
        _pictures(section, drawn),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    return f'<ul class="verdicts">{"".join(map(_verdict, verdicts))}</ul>' if verdicts else ""


def _verdict(verdict: Verdict) -> str:
    advice = f"<p><em>What to try next:</em> {_prose(verdict.advice)}</p>" if verdict.advice else ""
    threshold = f'<p class="faint">Thresholds: {_text(verdict.threshold)}.</p>' if verdict.threshold else ""
    return (
        f'<li class="{verdict.status}"><span class="chip">{verdict.status}</span>'
        f"<strong>{_text(verdict.title)}</strong> "
        f'<span class="value">{_text(verdict.value)}</span><p>{_prose(verdict.meaning)}</p>{advice}{threshold}</li>'
    )


def _table(table: Table) -> str:
    caption = f"<caption>{_text(table.caption)}</caption>" if table.caption and not table.folded else ""
    head = "".join(f'<th scope="col">{_text(h)}</th>' for h in table.header)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    markup = (
        f'<div class="scroll" tabindex="0"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    return f"<details><summary>{_text(table.caption)}</summary>{markup}</details>" if table.folded else markup


def _pictures(section: Section, drawn: Drawn) -> str:
    items = [_picture(p, drawn[p.name]) for p in section.pictures]
    return f'<div class="pictures">{"".join(items)}</div>' if items else ""


def _picture(picture: Picture, drawn: Mapping[str, bytes]) -> str:
    light, dark = (base64.b64encode(drawn[theme.name]).decode() for theme in (LIGHT, DARK))
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{dark}">'
        f'<img src="data:image/png;base64,{light}" alt="{_text(picture.alt)}"></picture>'
        f"<figcaption><strong>{_text(picture.title)}.</strong> {_text(picture.alt)}</figcaption></figure>"
    )
