"""`VIMCO`: the K-sample bound whose score-function sites learn from a leave-one-out signal.

    signal_k = (L_K − L_K with particle k filled in from the K − 1 others) − v_k

so each particle is credited with what it added; v_k = w_k/Σw comes from the log q inside the weights.  The fill-ins are
a table; any estimator of the site stays possible, since the comparison is the same in all rows of a particle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pathscore.elbos.importance import ImportanceELBO
from pathscore.elbos.weights import WeightedTerms, leave_one_out, others
from pathscore.errors import UsageError, unknown


def _geometric(logs: Tensor) -> Tensor:
    return leave_one_out(logs, torch.cumsum, torch.add, 0.0) / (len(logs) - 1)


def _arithmetic(logs: Tensor) -> Tensor:
    return others(logs) - math.log(len(logs) - 1)


def _nothing(logs: Tensor) -> Tensor:
    return torch.full_like(logs, -math.inf)


FILLS: dict[str, Callable[[Tensor], Tensor]] = {"geometric": _geometric, "arithmetic": _arithmetic, "none": _nothing}
"""log of the weight that stands in for particle k, from log w (K, *plates) of the others."""


class VIMCO(ImportanceELBO):
    """L_K with the signal L_K − log 1/K (Σ_{j≠k} w_j + ŵ_k) − v_k at every site that is not pathwise.

    fill says what ŵ_k is: "geometric" or "arithmetic", the mean of the other K − 1 weights, or "none": ŵ_k = 0. Then
    the signal is −log(1 − v_k) − v_k, of order v_k²: `ovis` (Liévin et al., γ = 0), whose noise vanishes fastest as
    the effective sample size grows. Their γ = 1 compares with −v_k too, which the particle itself decides: biased.

    Args: as `ImportanceELBO`, and fill.

    Raises:
        UsageError: fewer than 2 particles, or an unknown fill.

    References:
        Variational Inference for Monte Carlo Objectives. Mnih, Rezende, 2016.
        Optimal Variance Control of the Score-Function Gradient Estimator for Importance-Weighted Bounds. Liévin,
        Dittadi, Christensen, Winther, 2020.
    """

    remedy = "score has the leave-one-out signal already"

    def __init__(self, estimators: Any = None, *, num_particles: int = 2, fill: str = "geometric", **options: Any):
        if num_particles < 2:
            raise UsageError(
                f"--elbo vimco compares each particle with the others: --particles 2 or more, got {num_particles}"
            )
        if fill not in FILLS:
            raise unknown("fill", fill, FILLS)
        super().__init__(estimators, num_particles=num_particles, **options)
        self.fill = fill

    def baseline(self, terms: WeightedTerms) -> Tensor:
        powers = terms.powers(terms.log_w).detach()
        without = terms.bound_of(torch.logaddexp(others(powers), FILLS[self.fill](powers)))
        return without.repeat(terms.plan.rows // terms.plan.particles, *[1] * (without.ndim - 1))
