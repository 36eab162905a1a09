"""The use of the latent space: active units, aggregate posterior, embedding, traversals."""

from functools import partial

import numpy as np

from pathscore.diagnostics import latent_plots
from pathscore.diagnostics.latent_space import LatentUse, SiteUse, use
from pathscore.diagnostics.rules import RULES
from pathscore.diagnostics.subject import Picture, Section, Subject, Table
from pathscore.diagnostics.traversal import traverse
from pathscore.diagnostics.verdicts import Verdict, judge
from pathscore.evaluation.units import THRESHOLD

INTRO = (
    "Which latent units contain information about the data, and whether the latents of all data points together are "
    "distributed like the prior. A unit is active when the variance of the guide's mean over the data is more "
    f"than {THRESHOLD}."
)


def section(subject: Subject) -> Section:
    """Active units, rate per unit, aggregate posterior, embedding and traversals."""
    found = use(subject.model, subject.guide, subject.args, seed=subject.effort.seed + 5)
    verdicts = [
        judge("rate", found.rate),
        _active(found),
        judge("aggregate", found.marginal_gap, evidence=_apart(found), note=_decomposition(found)),
    ]
    notes = [LAYERS] * (len(found.sites) > 1)
    pictures = [
        picture
        for name, site in found.sites.items()
        for picture in _site_pictures(name, site, subject, len(found.sites) > 1)
    ]
    return Section(
        "latent",
        "Use of the latent space",
        INTRO,
        verdicts,
        [_table(found)],
        [*pictures, *traverse(subject, found)],
        numbers={
            "rate": found.rate,
            "active_share": found.active_share,
            "information": found.information,
            "active_units": {name: int(s.active.sum()) for name, s in found.sites.items()},
        },
        notes=notes,
    )


LAYERS = (
    "With several layers, E[log q − log p] of one layer is its contribution to the rate. It is no KL divergence and "
    "may be negative; the sum over the layers is the rate."
)


def _active(found: LatentUse) -> Verdict:
    """The share of active units in the layer that has the least; every layer with its count."""
    shares = {name: float(site.active.mean()) for name, site in found.sites.items()}
    least = min(shares, key=lambda name: shares[name])
    if len(shares) == 1:
        return judge("active", shares[least])
    counts = ", ".join(f"{name} {int(s.active.sum())} of {len(s.active)}" for name, s in found.sites.items())
    unused = f"; {least} is unused" if shares[least] == 0 else ""
    return judge("active", shares[least], note=f"in {least} ({counts}{unused})")


def _apart(found: LatentUse) -> bool:
    """Whether the aggregate posterior is beyond the threshold by more than a finite number of data points explains."""
    return found.marginal_gap > RULES["aggregate"].limits[0] + found.gap_noise


def _decomposition(found: LatentUse) -> str:
    """The decomposition of the rate, where there are enough data points to estimate it."""
    if found.aggregate_gap is None:
        return "(unit by unit, summed)"
    return (
        f"(unit by unit, summed; of all units together {found.aggregate_gap:.2f} = rate {found.rate:.2f} − information "
        f"{found.information:.2f})"
    )


def _table(found: LatentUse) -> Table:
    rows = [
        (
            name,
            f"{int(s.active.sum())} of {len(s.rate)}",
            f"{s.rate.sum():.2f}",
            f"{s.mismatch.max():.2f}",
            f"{s.spread.min():.2f} – {s.spread.max():.2f}",
        )
        for name, s in found.sites.items()
    ]
    rate = "rate (nat)" if len(found.sites) == 1 else "contribution to the rate (nat)"
    return Table(("site", "active units", rate, "largest shift (prior sd)", "sd ÷ prior sd"), rows)


def _site_pictures(name: str, site: SiteUse, subject: Subject, several: bool) -> list[Picture]:
    what = "contribution to the rate" if several else "KL(q ‖ p)"
    pictures = [
        Picture(
            f"rate-{name}",
            f"{name}: {what} of each unit",
            f"{int(site.active.sum())} of {len(site.rate)} units are active.",
            partial(latent_plots.rate_plot, rate=site.rate, active=site.active, label=f"{what} (nat)"),
        ),
        _aggregate(name, site),
        _embedding(name, site, subject),
    ]
    if site.discrete and site.means.ndim == 2 and site.means.min() >= 0 and site.means.max() <= 1:
        labels = subject.labels if subject.labels is not None else site.means.mean(1)
        order = np.argsort(labels, kind="stable")
        pictures.append(
            Picture(
                f"heat-{name}",
                f"{name}: q(z = 1 | x)",
                "Rows are data points, sorted by label. Columns are units.",
                partial(latent_plots.heat_map, means=site.means, order=order, label=f"units of {name}"),
            )
        )
    return pictures


def _aggregate(name: str, site: SiteUse) -> Picture:
    flat, prior = (a.reshape(len(a), -1) for a in (site.aggregate, site.prior))
    spread = np.maximum(prior.std(0), 1e-6)
    difference = np.abs(flat.mean(0) - prior.mean(0)) / spread + np.abs(flat.std(0) / spread - 1)
    top = np.argsort(difference)[::-1][: 16 if site.discrete else 6]
    coordinates = {"aggregate": flat[:, top], "prior": prior[:, top], "names": [f"{name}[{i}]" for i in top]}
    binary = site.discrete and min(flat.min(), prior.min()) >= 0 and max(flat.max(), prior.max()) <= 1
    return Picture(
        f"aggregate-{name}",
        f"{name}: aggregate posterior against prior",
        "The coordinates with the largest difference.",
        partial(latent_plots.frequency_plot if binary else latent_plots.aggregate_plot, **coordinates),
    )


def _embedding(name: str, site: SiteUse, subject: Subject) -> Picture:
    points, axes = project(site.means.reshape(len(site.means), -1), name)
    coloured = " coloured by label" if subject.labels is not None else ""
    return Picture(
        f"embedding-{name}",
        f"{name}: guide means of the data{coloured}",
        "A dot for each data point.",
        partial(latent_plots.embedding_plot, points=points, labels=subject.labels, axes_names=axes),
    )


def project(means: np.ndarray, name: str) -> tuple[np.ndarray, tuple[str, str]]:
    """(N, D) → (N, 2): the coordinates for D ≤ 2, otherwise the first two principal components."""
    if means.shape[1] <= 2:
        points = np.zeros((len(means), 2))
        points[:, : means.shape[1]] = means
        return points, (f"{name}[0]", f"{name}[1]" if means.shape[1] == 2 else "")
    from sklearn.decomposition import PCA  # sets variables of the environment when it is imported

    found = PCA(2).fit(means)
    shares = np.nan_to_num(found.explained_variance_ratio_)  # NaN where nothing varies
    first, second = (f"component {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(shares))
    return found.transform(means), (first, second)
