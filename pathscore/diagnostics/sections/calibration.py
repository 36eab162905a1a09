"""Is the guide calibrated: simulation-based ranks and coverage of central intervals."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy import stats

from pathscore.diagnostics import plots, uniformity
from pathscore.diagnostics.calibration import ALPHA, Calibration, Coverage, calibrate
from pathscore.diagnostics.subject import Picture, Section, Subject, Table
from pathscore.diagnostics.verdicts import Verdict, judge

INTRO = (
    "Latents and data are simulated from the model. The guide is given the data, and the true latents are ranked among "
    "its draws. {replicates} simulated data sets, {draws} draws each; ties of discrete latents are broken "
    "at random. This checks the guide on data of the model. It does not check whether the model fits real data."
)


CORRECT = "Points on the diagonal: correct coverage. A 99.9 % bar that misses it: a significant error."


def section(subject: Subject) -> Section:
    """Ranks (empirical CDF with a simultaneous band) and coverage."""
    effort = subject.effort
    found = calibrate(
        subject.model,
        subject.guide,
        subject.args,
        replicates=effort.replicates,
        draws=effort.rank_draws,
        seed=effort.seed + 1,
    )
    p, worst = found.uniformity()
    covered = found.coverage()
    return Section(
        "calibration",
        "Is the guide calibrated",
        INTRO.format(replicates=found.replicates, draws=found.draws),
        verdicts=[_ranks(found, p, worst), _coverage(covered)],
        tables=[
            Table(
                ("interval", "observed", "± s.e."),
                [(f"{c.level:.0%}", f"{c.observed:.1%}", f"{c.standard_error:.1%}") for c in covered],
                "How often central intervals of the guide contain the true value, over all latent coordinates.",
            )
        ],
        pictures=_pictures(found, worst, covered),
        numbers={
            "p_value": p,
            "worst": found.coordinate(worst),
            "replicates": found.replicates,
            "coverage": {str(c.level): (c.observed, c.standard_error) for c in covered},
        },
    )


def _ranks(found: Calibration, p: float, worst: int) -> Verdict:
    size = uniformity.deviation(found.all[:, worst])
    shape = f", {found.shape(worst)}" if p <= ALPHA else ""
    return judge("ranks", size, evidence=p <= ALPHA, note=f"(worst: {found.coordinate(worst)}{shape}; p = {p:.2g})")


def _coverage(covered: Sequence[Coverage]) -> Verdict:
    worst = max(covered, key=lambda c: abs(c.observed - c.level))
    smallest = min(1.0, min(c.p_value for c in covered) * len(covered))
    word = "narrow" if worst.observed < worst.level else "wide"
    how = f"too {word}" if smallest <= ALPHA else "not significant"
    note = f"(coverage of the {worst.level:.0%} interval: {worst.observed:.1%}, {how})"
    return judge("coverage", abs(worst.observed - worst.level), evidence=smallest <= ALPHA, note=note)


def _pictures(found: Calibration, worst: int, covered: Sequence[Coverage]) -> list[Picture]:
    label = found.coordinate(worst)
    level, observed, error = (
        np.array([getattr(c, k) for c in covered]) for k in ("level", "observed", "standard_error")
    )
    ranks = partial(plots.ecdf_plot, pit=found.all, worst=worst, label=label)
    # As wide as the verdict's level: a bar that misses the diagonal is significant.
    half = error * stats.t.isf(ALPHA / len(covered) / 2, max(found.replicates - 1, 1))
    coverage = partial(plots.coverage_plot, nominal=level, observed=observed, half=half)
    alt = f"One line per latent coordinate; the most extreme is {label}. Lines inside the grey band: correct ranks."
    return [
        Picture("ranks", "Ranks of the truth: empirical CDF against uniform", alt, ranks),
        Picture("coverage", "Coverage of central intervals", CORRECT, coverage),
    ]
