"""Run the diagnostics on any Pyro pair: `examine(model, guide, x) -> [Section]`.

One diagnostic that can't be computed says why in its section and leaves the others alone.
"""

from collections.abc import Callable, Sequence

import numpy as np

from pathscore.diagnostics import DIAGNOSTICS, Diagnostic
from pathscore.diagnostics.arviz import draw_tree
from pathscore.diagnostics.subject import Effort, Section, Subject
from pathscore.diagnostics.verdicts import not_computed
from pathscore.errors import PathscoreError, in_short, unknown
from pathscore.svi.pairs import takes_svi


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
) -> list[Section]:
    """Diagnose any Pyro model/guide pair on data x (a tensor, or a tuple of program arguments); or `examine(svi, x)`.

    `names`: entries of DIAGNOSTICS, all by default; `strict`: raise what a diagnostic raises instead of noting it.
    """
    effort = effort or Effort()
    args = x if isinstance(x, tuple) else (x,)
    tree = draw_tree(model, guide, args, effort.draws, prior_draws=0, predictive_draws=0, seed=effort.seed)
    return sections_of(Subject(model, guide, args, tree, effort, labels, image_shape), names, strict)


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
        found.append(_attempt(DIAGNOSTICS[name], subject, strict))
    return found


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
