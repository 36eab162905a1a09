"""Run the diagnostics on any Pyro pair: `examine(model, guide, x) -> Report`.

One diagnostic that can't be computed says why in its section and leaves the others alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pathscore.diagnostics import DIAGNOSTICS, Diagnostic
from pathscore.diagnostics.arviz import draw_tree
from pathscore.diagnostics.report import Report
from pathscore.diagnostics.subject import Effort, Section, Subject
from pathscore.diagnostics.verdicts import Verdict, not_computed
from pathscore.errors import PathscoreError, in_short, unknown
from pathscore.svi.pairs import takes_svi
from pathscore.svi.svi import name_of


@takes_svi
def examine(
    model: Callable,
    guide: Callable,
    x,
    *,
    names: Sequence[str] | None = None,
    effort: Effort | None = None,
    labels: np.ndarray | None = None,
    image_shape: tuple[int, ...] | None = None,
    strict: bool = False,
) -> Report:
    """Diagnose any Pyro model/guide pair on data x (a tensor, or a tuple of program arguments); or `examine(svi, x)`.

    The report is a sequence of sections, one a diagnostic, with `ok`, `save("report.html")` and `to_dataframe()`.

    names: entries of DIAGNOSTICS, all by default. effort: how much work each does. labels: (N,) of the data, for
    colours. image_shape: (C, H, W) where a data point is an image. strict: raise what a diagnostic raises instead of
    noting it.

    Raises: UsageError for an unknown name, and for programs whose sites do not fit; NumericsError for draws that are
    NaN.
    """
    effort = effort or Effort()
    args = x if isinstance(x, tuple) else (x,)
    tree = draw_tree(model, guide, args, effort.draws, prior_draws=0, predictive_draws=0, seed=effort.seed)
    subject = Subject(model, guide, args, tree, effort, labels, image_shape)
    sections = sections_of(subject, names, strict)
    title = f"{name_of(guide)} as the posterior of {name_of(model)}"
    return Report(tuple(sections), title, described(subject), settings(effort))


def described(subject: Subject) -> str:
    """What was examined, in one sentence."""
    sites = {kind: ", ".join(site.name for site in subject.layout.of(kind)) for kind in ("latent", "observed")}
    size = "One posterior for all the data" if subject.joint else f"Examined on {subject.points} data points"
    return f"Latent sites: {sites['latent']}. Observed sites: {sites['observed'] or 'none'}. {size}."


def settings(effort: Effort) -> str:
    """The settings of an examination, so that it can be repeated."""
    return "Settings: " + ", ".join(f"{k} = {v}" for k, v in vars(effort).items()) + "."


def sections_of(
    subject: Subject, names: Sequence[str] | None, strict: bool, progress: Callable[[str], None] = lambda name: None
) -> list[Section]:
    """The sections of the chosen diagnostics, in the order of the table."""
    chosen = list(DIAGNOSTICS) if names is None else list(names)
    for name in chosen:
        if name not in DIAGNOSTICS:
            raise unknown("diagnostic", name, DIAGNOSTICS)
    found = []
    for name in chosen:
        progress(name)
        found.append(_spoken(_attempt(DIAGNOSTICS[name], subject, strict), subject.flags))
    return found


def _spoken(section: Section, flags: frozenset[str] | None) -> Section:
    """The section with the flags that a run of the command line has, and the words of Python for any other program."""

    def spoken(verdict: Verdict) -> Verdict:
        if flags is None:
            return replace(verdict, flags="")
        return replace(verdict, python="", flags=known(verdict.flags, flags))

    return replace(section, verdicts=[spoken(verdict) for verdict in section.verdicts])


def known(words: str, flags: frozenset[str]) -> str:
    """The words, separated by semicolons, without those that begin with a flag that a run does not have."""
    parts = [part for part in words.split("; ") if not part.startswith("--") or part.split()[0] in flags]
    return "; ".join(parts)


def _attempt(diagnostic: Diagnostic, subject: Subject, strict: bool) -> Section:
    """One section, or one that says why there is none: a page with a hole is worth more than no page."""
    try:
        return diagnostic(subject)
    except PathscoreError as error:
        if strict:
            raise
        reason = str(error)
    except Exception as error:  # a program of the user's that some check can't run, in whatever way
        if strict:
            raise
        reason = in_short(error)
    return Section(
        diagnostic.name,
        diagnostic.doc[0].upper() + diagnostic.doc[1:],
        "",
        [not_computed(diagnostic.name, diagnostic.name, reason)],
    )
