"""NUTS chains on a few data points, compared with the guide."""

from functools import partial

import numpy as np

from pathscore.diagnostics import plots
from pathscore.diagnostics.reference import RHAT, Reference, nuts
from pathscore.diagnostics.rows import row_plate
from pathscore.diagnostics.subject import Picture, Section, Subject, Table
from pathscore.diagnostics.verdicts import Verdict, judge, not_computed


def section(subject: Subject) -> Section:
    """Compare the guide with NUTS on a few data points."""
    effort = subject.effort
    points = min(effort.chain_points, subject.points)
    where = f"{points} data points" if row_plate(subject.layout, subject.args)[0] else "all the data together"
    intro = f"NUTS chains of the model on {where}, compared with 1 000 draws of the guide."
    if effort.chain_points == 0 or any(site.discrete for site in subject.layout.of("latent")):
        reason = "NUTS needs continuous latents." if effort.chain_points else "Not requested (chain_points=0)."
        return Section(
            "chains", "Guide against MCMC", intro, [not_computed("chains", "Guide against NUTS chains", reason)]
        )
    found = nuts(
        subject.model,
        subject.guide,
        subject.first(effort.chain_points),
        draws=effort.chain_draws,
        warmup=effort.chain_draws,
        seed=effort.seed + 3,
    )
    return Section(
        "chains",
        "Guide against MCMC",
        intro,
        [_chains_verdict(found)],
        [_chains_table(found)],
        [
            Picture(
                "chains",
                "Guide against chains, one dot per latent coordinate",
                f"Means differ by up to {np.abs(found.shift).max():.2f} posterior standard deviations; standard "
                f"deviations have ratios {found.scale.min():.2f} to {found.scale.max():.2f}.",
                partial(plots.chains_plot, shift=found.shift, scale=found.scale),
            )
        ],
        numbers={
            "rhat_max": float(found.rhat.max()),
            "ess_min": float(found.ess.min()),
            "shift_max": float(np.abs(found.shift).max()),
            "divergences": found.divergences,
        },
    )


def _chains_verdict(found: Reference) -> Verdict:
    title = "Guide against NUTS chains"
    if not found.mixed:
        return not_computed(
            "chains",
            title,
            f"The chains have not mixed (R-hat up to {np.nanmax(found.rhat):.2f}, "
            f"limit {RHAT}): they cannot judge the guide. Use longer chains: chain_draws=1000.",
        )
    largest = float(np.abs(found.shift).max())
    noise = 4 * float(np.sqrt(1 / found.ess.min() + 1 / 1000))  # four standard errors: the value is the largest of many
    return judge("chains", largest, evidence=largest > 0.5 + noise, note=f"(Monte Carlo noise up to {noise:.2f})")


def _chains_table(found: Reference) -> Table:
    rows = [
        ("chains × draws", f"{found.chains} × {found.draws}"),
        ("largest R-hat", f"{found.rhat.max():.3f}"),
        ("smallest effective sample size", f"{found.ess.min():.0f}"),
        ("divergent transitions", f"{found.divergences}"),
    ]
    return Table(("chains", ""), rows)
