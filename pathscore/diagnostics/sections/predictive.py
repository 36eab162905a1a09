"""Compare data from the model with the data, for each observed site."""

from functools import partial

import numpy as np

from pathscore.diagnostics import plots
from pathscore.diagnostics.calibration import ALPHA
from pathscore.diagnostics.layout import Site
from pathscore.diagnostics.predictive import Predictive, Summaries, check, summaries
from pathscore.diagnostics.reliability import Reliability, reliability
from pathscore.diagnostics.subject import Picture, Section, Subject, Table
from pathscore.diagnostics.verdicts import Verdict, judge
from pathscore.errors import UsageError

VALUES = 2**18
"""Site elements of the data in a reliability curve: enough to detect a difference of 0.01."""

DATA_SETS = 1000
"""Data sets drawn from the posterior predictive, at least."""

SUGGESTIVE = 0.01
"""A posterior predictive p-value below it, over all summaries, counts; such p-values are conservative."""

LOCAL = (
    "Ranks and a rootogram of a summary of each data point, among {draws} draws of the model for each; for 0/1 data "
    "also the reliability of the predicted probabilities. The checks are valid for discrete data."
)
SHARED = (
    "Summaries of the data beside those of {draws} data sets drawn from the posterior predictive. Data points share "
    "{shared}, so they are no independent test of the model, and the data set is compared as a whole."
)
TITLE = "Does the model fit"


def section(subject: Subject) -> Section:
    """Ranks and rootogram of a summary, PAVA for 0/1 data; for shared latents posterior predictive checks."""
    sites = subject.layout.of("observed")
    if not sites:
        raise UsageError("the model has no observed site: there is nothing to compare")
    parts = [(_shared if subject.layout.shared else _local)(subject, site, len(sites) > 1) for site in sites]
    return Section(
        "predictive",
        TITLE,
        parts[0].intro,
        [verdict for part in parts for verdict in part.verdicts],
        [table for part in parts for table in part.tables],
        [picture for part in parts for picture in part.pictures],
        parts[0].numbers if len(parts) == 1 else {part.name: part.numbers for part in parts},
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _local(subject: Subject, site: Site, named: bool) -> Section:
    """Of one observed site with latents local to each data point. named: say which site it is."""
    effort, pair = subject.effort, (subject.model, subject.guide)
    found = check(*pair, subject.args, site.name, draws=effort.check_draws, seed=effort.seed + 4)
    label = f"{site.name}, {found.statistic}" if named else found.statistic
    note = f"({label}: p = {found.p_value:.2g})" if named else f"(p = {found.p_value:.2g})"
    verdicts = [judge("counts", found.deviation, evidence=found.p_value <= ALPHA, note=note)]
    pictures, notes, error = _pictures(found, site.name, label), [], None
    try:
        curves = reliability(*pair, _few(subject), name=site.name, seed=effort.seed + 8)
    except UsageError as reason:
        notes = [] if "0/1" in str(reason) else [f"No reliability curve: {reason}."]
    else:
        error = curves.error
        verdicts.append(judge("reliability", error, evidence=curves.evidence, note=f"({site.name})" if named else ""))
        pictures.append(_pava(curves, site.name))
    numbers = {
        "statistic": found.statistic,
        "p_value": found.p_value,
        "deviation": found.deviation,
        "reliability_error": error,
    }
    intro = LOCAL.format(draws=len(found.prior))
    return Section(site.name, TITLE, intro, verdicts, pictures=pictures, numbers=numbers, notes=notes)


def _few(subject: Subject) -> tuple:
    """The first data points: as many as have VALUES values together."""
    return subject.first(max(2, VALUES * subject.points // subject.layout.elements))


def _pictures(found: Predictive, site: str, label: str) -> list[Picture]:
    return [
        Picture(
            f"rootogram-{site}",
            f"Rootogram: {label}, in the data and in draws of the model",
            "Bars: the data. Line: the model, with the range of 95 % of its simulated data sets. Crosses: "
            "reconstructions.",
            partial(plots.rootogram, observed=found.observed, drawn=found.prior, rebuilt=found.posterior, label=label),
        ),
        Picture(
            f"counts-{site}",
            f"Rank of each data point's {label} among draws of the model",
            "Empirical CDF of the ranks minus the diagonal. A line inside the band: no significant difference.",
            partial(plots.ecdf_plot, pit=found.pit[:, None], worst=0, label=label),
        ),
    ]


def _pava(found: Reliability, site: str) -> Picture:
    return Picture(
        f"pava-{site}",
        "Reliability of predicted probabilities (PAVA)",
        "Share of ones against predicted probability, for the data and for simulated data. The guide has seen the "
        "data: a correct model gives the simulated curve, not the diagonal. Mean difference: "
        f"{found.error:.3f}.",
        partial(plots.reliability_plot, held_out=found.held_out, model=found.model),
    )


def _shared(subject: Subject, site: Site, named: bool) -> Section:
    """Of one observed site whose data share a latent."""
    draws = max(DATA_SETS, subject.effort.check_draws)
    pair = (subject.model, subject.guide, subject.args)
    found = summaries(*pair, site.name, draws=draws, seed=subject.effort.seed + 4)
    picture = Picture(
        f"summaries-{site.name}",
        f"Posterior predictive check of {site.name}",
        "Dots: the data. Lines: 95 % and half of the data sets drawn from the posterior predictive, in standard "
        "deviations from their mean.",
        partial(plots.summaries_plot, observed=found.observed, drawn=found.drawn),
    )
    intro = SHARED.format(draws=f"{draws:,}", shared=", ".join(subject.layout.shared))
    numbers = {"observed": found.observed, "p_value": found.p_value}
    table = _summary_table(found, site.name)
    return Section(site.name, TITLE, intro, [_summary_verdict(found, site, named)], [table], [picture], numbers)


def _summary_verdict(found: Summaries, site: Site, named: bool) -> Verdict:
    worst, p = found.worst, min(1.0, len(found.observed) * found.p_value[found.worst])
    where = f"{site.name}, {worst}" if named else worst
    return judge(
        "ppc",
        found.distance[worst],
        evidence=p <= SUGGESTIVE,
        note=f"(of the summary '{where}'; p = {p:.2g}, for all summaries together)",
    )


def _summary_table(found: Summaries, name: str) -> Table:
    rows = []
    for label, value in found.observed.items():
        low, high = np.quantile(found.drawn[label], [0.025, 0.975])
        rows.append((label, f"{value:.3g}", f"{low:.3g} … {high:.3g}", f"{found.p_value[label]:.2g}"))
    return Table((f"summary of {name}", "data", "95 % of draws", "p"), rows)
