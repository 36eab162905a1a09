"""The plain records of the lab: what one estimator drew (`Run`), what it is compared with (`Reference`), a `Row`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from pathscore.gradients.leaves import Key
from pathscore.gradients.moments import Moments

MAX_Z = 4.5
"""|z| above which a coordinate counts as biased: two-sided false-alarm rate 7e-6 a coordinate."""


ENOUGH = 1000
"""Gradients from which on |z| is read as a test of bias: with fewer, heavy tails are not yet in the standard error."""

QUANTILES = (0.005, 0.25, 0.75, 0.995)


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
class Reference:
    """A gradient (P,) to compare with.

    variance: squared error of each coordinate, (P,), where it was itself estimated; 0 where it is exact.
    source: where it comes from, for tables. exact: whether it is.
    """

    gradient: Tensor
    variance: Tensor | float
    source: str
    exact: bool

    @property
    def largest(self) -> int:
        """The coordinate in which the gradient is largest."""
        return int(self.gradient.abs().argmax())


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
    particles: K. evaluations: model evaluations a draw, counterfactual rows included.
    milliseconds: time of one draw inside a pass of many, its backward pass included and the training of what is
        learned left out; relative_cost: total_variance × milliseconds, divided by the least such product.
    elbo: mean of the reported bound, in nats. replicates: gradients drawn, N.
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
    replicates: int
    variance_by_parameter: dict[str, float]
    mean: Tensor = field(repr=False)
    variance: Tensor = field(repr=False)
    draws: Tensor = field(repr=False)

    def quantiles(self) -> dict[str, list[float]]:
        """0.5 %, 25 %, 75 % and 99.5 % of `draws`."""
        at = torch.tensor(QUANTILES, dtype=torch.float64)
        return {"quantiles": torch.quantile(self.draws.double(), at).tolist()}

    def as_dict(self) -> dict[str, Any]:
        """The row without tensors, for JSON; infinities and NaN as None."""
        values = {k: v for k, v in asdict(self).items() if not isinstance(v, Tensor)}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
