"""Compare data from the model with held-out data."""

from functools import partial

from pathscore.diagnostics import plots
from pathscore.diagnostics.calibration import ALPHA
from pathscore.diagnostics.predictive import Predictive, check
from pathscore.diagnostics.reliability import Reliability, reliability
from pathscore.diagnostics.rules import RULES
from pathscore.diagnostics.subject import Picture, Section, Subject
from pathscore.diagnostics.verdicts import Verdict, judge, not_computed
from pathscore.errors import UsageError

PIXELS = 2**18
"""Site elements of the data in a reliability curve: enough to detect a difference of 0.01."""

INTRO = (
    "Model against held-out data, with checks that are valid for binary data: a rootogram and ranks of a "
    "summary of each data point ({statistic}; {draws} draws of the model for each), and the reliability of pixel "
    "probabilities."
)


def section(subject: Subject) -> Section:
    """Ranks and rootogram of a summary, PAVA for 0/1 data."""
    effort, pair = subject.effort, (subject.model, subject.guide, subject.args)
    found = check(*pair, draws=effort.check_draws, seed=effort.seed + 4)
    verdicts = [_counts(found)]
    pictures, notes, pixel_error = _pictures(found), [], None
    try:
        curves = reliability(subject.model, subject.guide, _few(subject), seed=effort.seed + 8)
    except UsageError as error:
        notes = [f"No reliability curve: {error}."]
    else:
        pixel_error = curves.error
        verdicts.append(judge("pixels", pixel_error, evidence=curves.evidence))
        pictures.append(_pava(curves))
    return Section(
        "predictive",
        "Does the model fit",
        INTRO.format(draws=len(found.prior), statistic=found.statistic),
        verdicts,
        pictures=pictures,
        notes=notes,
        numbers={
            "statistic": found.statistic,
            "p_value": found.p_value,
            "deviation": found.deviation,
            "pixel_error": pixel_error,
        },
    )


def _counts(found: Predictive) -> Verdict:
    if found.shared:
        reason = (
            f"{', '.join(found.shared)}: shared by several data points, so their ranks under the model are not "
            "independent, and there is no test. Look at the rootogram."
        )
        return not_computed("counts", RULES["counts"].title, reason, about="model")
    return judge("counts", found.deviation, evidence=found.p_value <= ALPHA, note=f"(p = {found.p_value:.2g})")


def _few(subject: Subject) -> tuple:
    """The first data points: as many as have PIXELS pixels together."""
    return subject.first(max(2, PIXELS * subject.points // subject.layout.elements))


def _pictures(found: Predictive) -> list[Picture]:
    pictures = [
        Picture(
            "rootogram",
            f"Rootogram: {found.statistic} in held-out data and in draws of the model",
            "Bars: held-out data. Line: the model, with the range of 95 % of its simulated data sets. Crosses: "
            "reconstructions.",
            partial(
                plots.rootogram,
                observed=found.observed,
                drawn=found.prior,
                rebuilt=found.posterior,
                label=found.statistic,
            ),
        ),
        Picture(
            "counts",
            f"Rank of each data point's {found.statistic} among draws of the model",
            "Empirical CDF of the ranks minus the diagonal. A line inside the band: no significant difference.",
            partial(plots.ecdf_plot, pit=found.pit[:, None], worst=0, label=found.statistic),
        ),
    ]
    return pictures[:1] if found.shared else pictures


def _pava(found: Reliability) -> Picture:
    return Picture(
        "pava",
        "Reliability of pixel probabilities (PAVA)",
        "Share of pixels that are 1 against predicted probability, for held-out data and for data simulated from the "
        "model. The guide has seen the pixels, so a correct model gives the simulated curve, not the diagonal. Mean "
        f"difference: {found.error:.3f}.",
        partial(plots.reliability_plot, held_out=found.held_out, model=found.model),
    )
