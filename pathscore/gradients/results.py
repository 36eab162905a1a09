"""Rows of the comparison: `rows_of(runs, reference) -> list[Row]`, what the table, the JSON and the pictures show."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from pathscore.gradients.leaves import Key
from pathscore.gradients.moments import Moments, cosines, hotelling, z_scores
from pathscore.gradients.reference import Reference

MAX_Z = 4.5
"""|z| above which a coordinate counts as biased: two-sided false-alarm rate 7e-6 a coordinate."""


@dataclass(frozen=True)
class Run:
    """What drawing with one estimator gave, before it is compared."""

    name: str
    unbiased: bool
    particles: int
    evaluations: int
    elbo: Any
    bound: float
    moments: Moments
    milliseconds: float
    groups: dict[Key, int]


@dataclass(frozen=True)
class Row:
    """One estimator.

    name: its label. unbiased: what it says of itself.
    max_abs_z: largest |mean − reference| / standard error over the coordinates, the standard error including what one
        draw that did not occur may have cost (`Moments.unseen`); hotelling_p: p-value over all of them together (None
        where N is too small for it, or the reference was estimated).
    detectable_bias: the bias in one coordinate, in nats per unit of the parameter, that |z| > 4.5 finds in half of all
        cases: 4.5 standard errors of the noisiest coordinate.
    total_variance: Σ over coordinates of the variance of one gradient; relative_variance: divided by the least among
        the unbiased ones whose variance is not 0; variance_se: standard error of total_variance, from the kept draws.
    snr: ‖E g‖ / √total_variance. cosine: mean over draws of the cosine to the reference.
    particles: K. evaluations: model evaluations a draw, what-if rows included.
    milliseconds: time of one draw inside a pass of many, its backward pass included and the training of learned parts
        left out; relative_cost: total_variance × milliseconds, divided by the least such product.
    elbo: mean of the reported bound, in nats.
    variance_by_parameter: total_variance by site and parameter, "z1.loc".
    mean, variance: by coordinate, (P,). draws: some draws of the reference's largest coordinate, (n,).
    """

    name: str
    unbiased: bool
    max_abs_z: float
    hotelling_p: float | None
    detectable_bias: float
    total_variance: float
    relative_variance: float
    variance_se: float
    snr: float
    cosine: float
    particles: int
    evaluations: int
    milliseconds: float
    relative_cost: float
    elbo: float
    variance_by_parameter: dict[str, float]
    mean: Tensor = field(repr=False)
    variance: Tensor = field(repr=False)
    draws: Tensor = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The row without tensors, for JSON; infinities and NaN as None."""
        values = {k: v for k, v in asdict(self).items() if not isinstance(v, Tensor)}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


@dataclass(frozen=True)
class Comparison:
    """The lab's result: `rows`, what they were held against, and how they were drawn.

    refused: estimators that cannot serve the program, with the reason (only when none were named).
    """

    title: str
    reference: Reference
    rows: list[Row]
    replicates: int
    warmup: int
    seed: int
    elbo: str
    of: str
    refused: dict[str, str]

    def __getitem__(self, name: str) -> Row:
        """The row of that label."""
        return next(row for row in self.rows if row.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        own = ("title", "elbo", "of", "replicates", "warmup", "seed")
        return {
            **{name: getattr(self, name) for name in own},
            "reference": self.reference.source,
            "estimators": [row.as_dict() for row in self.rows],
        }

    def to_json(self) -> str:
        """`as_dict` as JSON."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    def __str__(self) -> str:
        from pathscore.gradients.table import as_text

        return as_text(self)


def variance_ratio(a: Row, b: Row, z: float = 2.576) -> tuple[float, float]:
    """Interval of total_variance(a) / total_variance(b), at 99 % by default.

        exp(log V_a − log V_b ± z √(se_a² / V_a² + se_b² / V_b²))

    Treats the two as independent: common random numbers, which correlate them positively, make it wider than it
    need be.
    """
    spread = z * math.hypot(a.variance_se / a.total_variance, b.variance_se / b.total_variance)
    ratio = a.total_variance / b.total_variance
    return ratio * math.exp(-spread), ratio * math.exp(spread)


def rows_of(runs: list[Run], reference: Reference) -> list[Row]:
    """The runs compared with the reference and with each other."""
    unbiased = [run for run in runs if run.unbiased] or runs
    variances = [v for run in unbiased if (v := run.moments.variance.sum().item()) > 0]
    costs = [v * run.milliseconds for run in unbiased if (v := run.moments.variance.sum().item()) > 0]
    return [_row(run, reference, min(variances, default=1.0), min(costs, default=1.0)) for run in runs]


def _row(run: Run, reference: Reference, least_variance: float, least_cost: float) -> Row:
    moments, total = run.moments, run.moments.variance.sum().item()
    unseen = moments.unseen(list(run.groups.values())).square()
    p = hotelling(moments, reference.gradient, unseen) if reference.exact else math.nan
    error = unseen + reference.variance
    by_group = moments.variance.split(list(run.groups.values()))
    return Row(
        name=run.name,
        unbiased=run.unbiased,
        max_abs_z=z_scores(moments, reference.gradient, error).abs().max().item(),
        hotelling_p=None if math.isnan(p) else p,
        detectable_bias=MAX_Z * (moments.variance / moments.count + error).sqrt().max().item(),
        total_variance=total,
        relative_variance=total / least_variance,
        variance_se=moments.variance_error(),
        snr=math.sqrt(moments.squared_mean() / total) if total else math.inf,
        cosine=cosines(moments.kept, reference.gradient).mean().item(),
        particles=run.particles,
        evaluations=run.evaluations,
        milliseconds=run.milliseconds,
        relative_cost=total * run.milliseconds / least_cost,
        elbo=run.bound,
        variance_by_parameter={".".join(k): v.sum().item() for k, v in zip(run.groups, by_group, strict=True)},
        mean=moments.mean,
        variance=moments.variance,
        draws=moments.kept[:, reference.largest],
    )
