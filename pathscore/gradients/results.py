"""Rows of the comparison: `rows_of(runs, reference) -> list[Row]`, what the table, the JSON and the pictures show."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathscore.gradients.moments import cosines, hotelling, z_scores
from pathscore.gradients.records import ENOUGH, MAX_Z, Reference, Row, Run
from pathscore.gradients.table import WHAT, as_html, as_text, frame


@dataclass(frozen=True)
class Comparison:
    """The lab's result: `rows`, what they are compared with, and how they were drawn.

    refused: estimators that cannot serve the program, with the reason (only when none were named).
    own: the name of the row that a run trained with, which tables mark.
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
    own: str | None = None

    def __getitem__(self, name: str) -> Row:
        """The row of that label."""
        return next(row for row in self.rows if row.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON.

        largest: the reference's largest coordinate; `mean` and `quantiles` of a row are of its draws there.
        """
        own = ("title", "elbo", "of", "replicates", "warmup", "seed", "own")
        at = self.reference.largest
        return {
            **{name: getattr(self, name) for name in own},
            "reference": self.reference.source,
            "largest": self.reference.gradient[at].item(),
            "estimators": [{**row.as_dict(), "mean": row.mean[at].item(), **row.quantiles()} for row in self.rows],
        }

    def to_json(self) -> str:
        """`as_dict` as JSON."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    def notes(self) -> list[str]:
        """How the numbers were measured, in lines."""
        frozen = f"; baselines and control variates trained for {self.warmup} steps, then frozen" if self.warmup else ""
        worst = max(row.detectable_bias for row in self.rows)
        lines = [
            f"{self.replicates:,} gradients each (--elbo {self.elbo}) by {WHAT[self.of]}{frozen}",
            f"reference: {self.reference.source}",
            f"|z| > {MAX_Z}: a bias was found; detectable bias (power 50 %) in the noisiest coordinate: {worst:.2g}",
        ]
        few = [row.name for row in self.rows if row.replicates < ENOUGH]
        if few:
            said = f"too few replicates to judge a bias{_of(few, self.rows)}: draw at least {ENOUGH:,} each"
            lines[2 if len(few) == len(self.rows) else 3 :] = [said]
        if any(not row.unbiased or row.total_variance == 0 for row in self.rows):
            lines.append("× best and var × time are relative to the best of the unbiased rows that have a variance")
        if refused := ", ".join(self.refused):
            lines.append(f"not legal here: {refused}")
        return lines

    def __str__(self) -> str:
        return as_text(self.rows, self.notes(), self.own)

    __repr__ = __str__  # a prompt shows the table

    def _repr_html_(self) -> str:
        return as_html(self.rows, self.notes(), self.own)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row for each estimator, unrounded; `variance_se` is the ± of `total_variance`."""
        return frame(self.rows)

    def plot(self, ax: Any = None) -> Any:
        """Variance against cost in a panel, a new one if not given; returns the matplotlib Axes."""
        from pathscore.diagnostics.palette import LIGHT  # with matplotlib
        from pathscore.gradients.pictures import trade_off

        return trade_off(LIGHT, self.as_dict(), ax)


def _of(names: list[str], rows: list[Row]) -> str:
    """Whose replicates are too few, where it is not all of them."""
    return "" if len(names) == len(rows) else f" of {', '.join(names)}"


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
        replicates=moments.count,
        variance_by_parameter={".".join(k): v.sum().item() for k, v in zip(run.groups, by_group, strict=True)},
        mean=moments.mean,
        variance=moments.variance,
        draws=moments.kept[:, reference.largest],
    )
