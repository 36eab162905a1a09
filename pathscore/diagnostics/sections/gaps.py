"""The parts of the gap: amortisation gap (encoder) and approximation gap (the guide's family)."""

from functools import partial

import numpy as np

from pathscore.diagnostics import plots
from pathscore.diagnostics.gaps import Gaps, gaps
from pathscore.diagnostics.sections.importance import errors
from pathscore.diagnostics.subject import Picture, Section, Subject, Table
from pathscore.diagnostics.verdicts import Verdict, judge
from pathscore.errors import UsageError

INTRO = (
    "The variational parameters were re-optimised for each of {points} data points. The gain in ELBO is the "
    "amortisation gap, which the guide's network causes. The remaining difference to log p(x) is the approximation "
    "gap, which the guide's family causes. log p(x) is estimated with draws of the re-optimised guide too, whose "
    "weights vary less, so that the whole gap may be larger than that above."
)


def section(subject: Subject) -> Section:
    """Amortisation gap beside approximation gap."""
    effort = subject.effort
    if subject.point_sites:
        raise UsageError(
            f"{', '.join(subject.point_sites)}: point estimates in the guide, without a distribution: there is no gap"
        )
    args = subject.first(effort.gap_points)
    found = gaps(subject.model, subject.guide, args, steps=effort.gap_steps, seed=effort.seed + 2)
    several = len(subject.layout.of("latent")) > 1
    notes = [
        "With several latent layers, re-optimisation only shifts the parameters of each layer by an offset, and keeps "
        "its dependence on the layer below. The amortisation gap is then a lower bound."
    ] * several
    return Section(
        "gaps",
        "Where the gap comes from",
        INTRO.format(points=len(found.amortisation)),
        verdicts=[
            _verdict("amortisation", found.amortisation, _noise(found)),
            _verdict("approximation", found.approximation, _noise(found)),
        ],
        tables=[_table(found)],
        pictures=[
            Picture(
                "gaps",
                "The gap, data point by data point",
                f"Stacked bars: amortisation gap, mean {found.amortisation.mean():.2f} nat, on approximation "
                f"gap, mean {found.approximation.mean():.2f} nat.",
                partial(plots.gap_plot, amortisation=found.amortisation, approximation=found.approximation),
            )
        ],
        numbers={
            "amortisation": float(found.amortisation.mean()),
            "approximation": float(found.approximation.mean()),
            "points": len(found.amortisation),
        },
        notes=notes,
    )


def _noise(found: Gaps) -> float:
    """The Monte Carlo standard error of a mean difference of ELBOs."""
    return float(
        np.sqrt(np.square(found.guide.elbo_se).sum() + np.square(found.best.elbo_se).sum()) / len(found.amortisation)
    )


def _verdict(name: str, values: np.ndarray, noise: float) -> Verdict:
    se = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
    return judge(name, float(values.mean()), evidence=values.mean() > 0.2 + 3 * noise, note=errors(se, noise))


def _table(found: Gaps) -> Table:
    rows = [
        (label, f"{values.mean():.2f}", f"{values.std(ddof=1) / np.sqrt(len(values)):.2f}" if len(values) > 1 else "–")
        for label, values in (
            ("ELBO of the guide", found.guide.elbo),
            ("ELBO, re-optimised", found.best.elbo),
            ("log p(x), importance-weighted", found.log_evidence),
            ("amortisation gap", found.amortisation),
            ("approximation gap", found.approximation),
        )
    ]
    return Table(("nats per data point", "mean", "± s.e. over data points"), rows)
