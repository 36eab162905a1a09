"""The quality of the guide: importance weights per data point, and exact figures where the latent space is small."""

from functools import partial
from typing import Any

import numpy as np
import torch

from pathscore import exact
from pathscore.diagnostics import plots
from pathscore.diagnostics.importance import Importance, importance, smoothed
from pathscore.diagnostics.rules import RULES
from pathscore.diagnostics.subject import Picture, Section, Subject, Table
from pathscore.diagnostics.verdicts import Verdict, judge

EXACT_POINTS = 100
"""Largest number of data points whose latent states are enumerated."""

EXACT_ELEMENTS = 2**23
"""Largest number of site elements in this enumeration: rows of the table × elements of a data point."""


def section(subject: Subject) -> Section:
    """k-hat, relative ESS, log p(x) and its gap to the ELBO; exact KL by enumeration or in closed form."""
    found = importance(subject.log_weight)
    if subject.point_sites:
        return Section("importance", TITLE, INTRO.format(draws=found.draws), [_point(subject.point_sites)])
    reference = exact_reference(subject)
    joint = found.gap.ndim == 0
    notes = []
    if subject.discrete:
        notes.append(
            "All latents are discrete: k-hat is not informative and not judged; relative ESS and log p(x) are judged."
        )
    return Section(
        "importance",
        TITLE,
        (JOINT if joint else INTRO).format(draws=found.draws),
        verdicts=[*(_joint_verdicts if joint else _verdicts)(found, subject.discrete), *_exact_verdict(reference)],
        tables=[_table(found, reference)],
        pictures=_joint_pictures(found, subject) if joint else _pictures(found, subject.discrete),
        numbers=_numbers(found, reference),
        notes=notes,
        pointwise={} if joint else {"log_likelihood": np.ravel(found.log_evidence), "elbo": np.ravel(found.elbo)},
    )


HEADER = ("nats per data point", "mean", "± s.e. over data points")
TITLE = "How good is the guide"
INTRO = (
    "Every draw of the guide has an importance weight p(x, z) / q(z | x). If the guide were the posterior, all "
    "weights of a data point would be equal. {draws} draws per data point."
)


JOINT = (
    "A latent is global, so there is one weight per draw for the whole data set, p(x, z) / q(z). If the guide were the "
    "posterior, all weights would be equal. {draws} draws."
)


def _point(sites: list[str]) -> Verdict:
    """The verdict on a guide that is not a distribution; its KL from the posterior is infinite."""
    return Verdict(
        "gap",
        RULES["gap"].title,
        "bad",
        "infinite",
        RULES["gap"].threshold(),
        f"{', '.join(sites)}: the same value in every draw. The guide is a point estimate. It has no standard "
        "deviation and no importance weights.",
        "Use a distribution (AutoNormal in place of AutoDelta), or use the guide only as a point estimate.",
    )


def errors(data: float | None, noise: float) -> str:
    """The standard errors of a mean, each with what it is over: the data points, or the draws of the guide."""
    over = [] if data is None or np.isnan(data) else [f"± {data:.2f} over data points"]
    return ", ".join([*over, f"± {noise:.2f} Monte Carlo"])


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean over data points and its standard error (NaN for one)."""
    flat = np.ravel(values)
    return float(flat.mean()), float(flat.std(ddof=1) / np.sqrt(len(flat))) if len(flat) > 1 else float("nan")


def _verdicts(found: Importance, discrete: bool) -> list[Verdict]:
    gap, se = _mean(found.gap)
    noise = float(np.sqrt(np.square(found.elbo_se).sum()) / found.gap.size)  # Monte Carlo only: the data are given
    verdicts = [
        judge("gap", gap, evidence=gap > 0.1 + 3 * noise, note=errors(se, noise)),
        judge("relative_ess", float(np.median(found.relative_ess))),
    ]
    if not discrete:
        share = float(np.mean(found.khat > found.khat_threshold)) if not np.isnan(found.khat).all() else float("nan")
        verdicts.append(judge("khat", share, note=f"(k-hat above {found.khat_threshold:.2f})"))
    return verdicts


def _joint_verdicts(found: Importance, discrete: bool) -> list[Verdict]:
    """Of one weight for the whole data set."""
    gap, noise = float(found.gap), float(found.elbo_se)
    verdicts = [
        judge("joint_gap", gap, evidence=gap > 0.1 + 3 * noise, note=errors(None, noise)),
        judge("joint_ess", float(found.relative_ess)),
    ]
    return verdicts if discrete else [*verdicts, judge("joint_khat", float(found.khat))]


def exact_reference(subject: Subject) -> dict[str, Any] | None:
    """Mean log p(x) and ELBO without sampling on the first data points, or None where the space is too large."""
    source, how = (exact, "enumeration") if subject.discrete else (exact.gaussian, "closed form")
    try:
        args = subject.first(_exact_points(subject))
        with torch.no_grad():
            evidence = source.log_evidence(subject.model, subject.guide, *args)
            elbo = float(source.elbo(subject.model, subject.guide, *args))
    except (ValueError, RuntimeError):  # too many states, not quadratic, outside the support, a shape that doesn't fit
        return None
    points = max(evidence.numel(), 1)
    return {"points": points, "log_evidence": float(evidence.sum()) / points, "elbo": elbo / points, "how": how}


def _exact_points(subject: Subject) -> int:
    """As many data points as fit, from the rows that one of them takes. Raises UsageError for too many states."""
    layout, total = subject.layout, subject.points
    if subject.discrete:
        rows = exact.count_states(subject.model, subject.guide, *subject.first(2))
    else:  # the closed form interpolates a quadratic in D variables
        rows = (layout.latent_elements // total + 2) ** 2 // 2
    return int(np.clip(EXACT_ELEMENTS * total // (rows * layout.elements), 2, EXACT_POINTS))


def _exact_verdict(reference: dict | None) -> list[Verdict]:
    if reference is None:
        return []
    points = reference["points"]
    how = reference["how"] if points == 1 else f"mean of {points} data points, {reference['how']}"
    return [judge("exact_kl", reference["log_evidence"] - reference["elbo"], note=f"({how})")]


def _table(found: Importance, reference: dict | None) -> Table:
    rows, joint = [], found.gap.ndim == 0
    for label, values, noise in (
        ("ELBO", found.elbo, found.elbo_se),
        (f"log p({'data' if joint else 'x'}), importance-weighted", found.log_evidence, found.log_evidence_se),
        ("gap, KL(q ‖ posterior)", found.gap, np.hypot(found.elbo_se, found.log_evidence_se)),
    ):
        mean, se = _mean(values)
        if joint:
            se = float(noise)
        rows.append((label, f"{mean:.2f}", "–" if np.isnan(se) else f"{se:.2f}"))
    if reference is not None:
        points = f" ({reference['how']}{f', {n} points' if (n := reference['points']) > 1 else ''})"
        rows.append(("log p(x), exact" + points, f"{reference['log_evidence']:.2f}", "0"))
        rows.append(("ELBO, exact" + points, f"{reference['elbo']:.2f}", "0"))
    caption = (
        "In expectation, log p(x) from importance weights is a lower bound. Where the relative effective sample size "
        "is near 0 or k-hat is too large, log p(x) is too low and the gap too small, by an unknown amount."
    )
    header = ("nats, the whole data set", "value", "± Monte Carlo s.e.") if joint else HEADER
    return Table(header, rows, caption)


def _pictures(found: Importance, discrete: bool) -> list[Picture]:
    ess, khat, gap = (np.ravel(v) for v in (found.relative_ess, found.khat, found.gap))
    draw = plots.histogram
    pictures = [
        Picture(
            "ess",
            "Relative effective sample size",
            f"Histogram over data points, median {np.median(ess):.2f}; 1 means that all draws have equal weights.",
            partial(draw, values=ess, label="relative ESS", limits=(0.0, 1.0)),
        ),
        Picture(
            "gap",
            "Gap between log p(x) and ELBO",
            f"Histogram over data points, mean {gap.mean():.2f} nat.",
            partial(draw, values=gap, label="log p(x) − ELBO (nat)"),
        ),
    ]
    if not discrete:  # the weights of discrete draws have no tail that a Pareto distribution fits
        alt = (
            f"Histogram over data points; {np.mean(khat > found.khat_threshold):.0%} lie above the threshold. Data "
            "points with equal weights have no k-hat."
        )
        draw_khat = partial(draw, values=khat, label="Pareto k-hat", threshold=found.khat_threshold)
        pictures.append(Picture("khat", "Pareto k-hat", alt, draw_khat))
    return pictures


def _joint_pictures(found: Importance, subject: Subject) -> list[Picture]:
    """The global latents, as the guide and as its importance-weighted draws have them."""
    names, draws = global_draws(subject)
    pictures = [
        Picture(
            "weights",
            "Log weights of the draws",
            f"If the guide were the posterior, all {found.draws} would be equal.",
            partial(plots.histogram, values=subject.log_weight, label="log p(data, z) − log q(z) (nat)", what="draws"),
        )
    ]
    if names:
        smooth, _ = smoothed(np.asarray(subject.log_weight, dtype=float)[:, None])
        pictures.append(
            Picture(
                "global",
                "Global latents",
                "Draws of the guide: thin lines 95 % of them, thick lines half. A mean that moves under the importance "
                "weights is not that of the posterior.",
                partial(plots.forest_plot, draws=draws, weights=smooth[:, 0], names=names),
            )
        )
    return pictures


SHOWN = 16
"""Coordinates of global latents in a picture."""


def global_draws(subject: Subject) -> tuple[list[str], np.ndarray]:
    """Names and draws (S, U) of the first coordinates of the latents that are shared, or of all where none is."""
    posterior, names, columns = subject.tree["posterior"], [], []
    for site in subject.layout.of("latent"):
        if site.discrete or (subject.layout.shared and site.name not in subject.layout.shared):
            continue
        flat = posterior[site.name].values[0].reshape(posterior.sizes["draw"], -1)
        for i in range(min(flat.shape[1], SHOWN - len(names))):
            names.append(f"{site.name}[{i}]" if flat.shape[1] > 1 else site.name)
            columns.append(flat[:, i])
    return names, np.stack(columns, 1) if columns else np.zeros((0, 0))


def _numbers(found: Importance, reference: dict | None) -> dict:
    numbers = {name: _mean(getattr(found, name)) for name in ("elbo", "log_evidence", "gap")}
    return {
        **numbers,
        "relative_ess_median": float(np.median(found.relative_ess)),
        "draws": found.draws,
        "khat_above": float(np.mean(found.khat > found.khat_threshold)),
        "khat_threshold": found.khat_threshold,
        "exact": reference,
    }
