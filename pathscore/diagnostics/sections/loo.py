"""PSIS-LOO of programs with global latents: how well each observation is predicted from the others."""

from functools import partial
from typing import Any

import numpy as np

from pathscore.diagnostics import plots
from pathscore.diagnostics.loo import Left, leave_one_out
from pathscore.diagnostics.subject import Picture, Section, Subject, Table
from pathscore.diagnostics.verdicts import judge, not_computed

TITLE = "Leave-one-out prediction"
INTRO = (
    "PSIS-LOO by ArviZ, on {draws} draws of the guide: the weights correct for leaving an observation out and for the "
    "difference between guide and posterior. Compare models of the same data by the difference of their elpd."
)


def section(subject: Subject) -> Section:
    """Expected log predictive density by PSIS-LOO, with the k-hat of each observation."""
    reason = _missing(subject)
    if reason:
        return Section("loo", TITLE, "", [not_computed("loo", TITLE, reason, "model")])
    found = {site.name: leave_one_out(subject.tree, site.name) for site in subject.layout.of("observed") if site.plates}
    draws = subject.tree["posterior"].sizes["draw"]
    numbers: dict[str, Any] = {name: left.numbers() for name, left in found.items()}
    verdicts = [
        judge("loo", left.share, note=f"({name}: k-hat above {left.threshold:.2f})") for name, left in found.items()
    ]
    return Section(
        "loo",
        TITLE,
        INTRO.format(draws=draws),
        verdicts,
        [_table(found)],
        [*map(_picture, found.items())],
        numbers,
        pointwise={"elpd": np.concatenate([left.pointwise for left in found.values()])},
    )


def _missing(subject: Subject) -> str:
    """Why there is no such figure, or nothing."""
    if not any(site.plates for site in subject.layout.of("observed")):
        return "No observed site is in a plate: there are no observations to leave out."
    local = [site.name for site in subject.layout.of("latent") if site.name not in subject.layout.shared]
    if local or not subject.joint:
        return f"It is for global latents alone; {', '.join(local) or 'all'}: local. Compare log p(x) of new data."
    if subject.point_sites:
        return f"{', '.join(subject.point_sites)}: point estimates in the guide, without weights."
    return ""


def _table(found: dict[str, Left]) -> Table:
    rows = [(f"elpd of {name}", f"{left.elpd:.2f}", f"{left.error:.2f}") for name, left in found.items()]
    rows += [(f"effective parameters, {name}", f"{left.parameters:.2f}", "–") for name, left in found.items()]
    return Table(("nats, all observations", "value", "± s.e. over observations"), rows)


def _picture(item: tuple[str, Left]) -> Picture:
    name, left = item
    alt = f"{np.mean(left.khat > left.threshold):.0%} of the observations lie above the threshold."
    draw = partial(plots.khat_plot, khat=left.khat, threshold=left.threshold)
    return Picture(f"loo-{name}", f"k-hat of each observation of {name}", alt, draw)
