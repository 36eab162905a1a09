"""What is compared, labels, and paired differences.

`Entry` is one run or report with its figures on the common held-out data, (N,) each. `paired(a, b) -> Difference`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pathscore.reports.gradients import TABLE, read_rows
from pathscore.runs.opening import Run

UNSEEN = ("threads", "device", "data_dir", "eval_samples", "track_variance")
"""Settings that do not change what was trained."""

UNKNOWN = "—"
"""The value of a setting that a program does not have."""

APART = 3.0
"""Standard errors beyond which a difference is significant: two-sided false-alarm rate 0.3 % per comparison."""


@dataclass(frozen=True)
class Entry:
    """One thing of a comparison: `label` says how it differs from the others. run: None for what is in memory."""

    label: str
    run: Run | None
    log_likelihood: np.ndarray  # (N,) K-sample bound, log predictive density or elpd; nats
    elbo: np.ndarray | None  # (N,) nats

    @property
    def group(self) -> tuple:
        """The settings that runs share which differ only by their seed."""
        if self.run is None:
            return (self.label,)
        return tuple(sorted((k, str(v)) for k, v in vars(self.run.config).items() if k not in ("seed", "threads")))

    @property
    def rows(self) -> float | None:
        """Evaluations of the model for one data point in one optimiser step: particles and counterfactual rows."""
        if self.run is None:
            return None
        rows = read_rows(self.run.path / TABLE)
        each = rows[0].get("evaluations") if rows else None  # the run's own estimator comes first
        return float(each or self.run.config.particles or 1)

    @property
    def evaluations(self) -> float | None:
        """Evaluations of the model in one optimiser step: batch size × `rows`."""
        if self.run is None or self.rows is None:
            return None
        return float((self.run.config.batch_size or 1) if self.run.config.program.takes else 1) * self.rows


def labels(configs: Sequence[Any], names: Sequence[str]) -> list[str]:
    """One label per run: the settings in which runs differ, or the directory's name if two runs have equal settings."""
    values = [{k: v for k, v in vars(c).items() if k not in UNSEEN} for c in configs]
    names_of_all = dict.fromkeys(k for v in values for k in v)  # programs of two kinds have options of their own
    differing = [k for k in names_of_all if len({str(v.get(k, UNKNOWN)) for v in values}) > 1]
    found = [", ".join(f"{k} {_short(v[k])}" for k in differing if k in v) for v in values]
    return [
        f"{text} ({name})" if found.count(text) > 1 or not text else text
        for text, name in zip(found, names, strict=True)
    ]


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else "default" if value is None else str(value)


@dataclass(frozen=True)
class Difference:
    """The mean paired difference of two vectors (N,), and its standard error."""

    mean: float
    error: float

    @property
    def z(self) -> float:
        """Mean / standard error; 0 for identical vectors."""
        return self.mean / self.error if self.error > 0 else (0.0 if self.mean == 0 else math.inf)

    @property
    def words(self) -> str:
        """better, worse, or not significant (within three standard errors)."""
        return "not significant" if abs(self.z) < APART else "better" if self.mean > 0 else "worse"

    @property
    def interval(self) -> tuple[float, float]:
        """99.7 % interval of the mean difference (normal distribution); it leaves 0 out where that is significant."""
        return self.mean - APART * self.error, self.mean + APART * self.error


def paired(a: np.ndarray, b: np.ndarray) -> Difference:
    """a − b over data points."""
    d = a - b
    return Difference(float(d.mean()), float(d.std(ddof=1) / np.sqrt(len(d))) if len(d) > 1 else math.nan)
