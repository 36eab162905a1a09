"""Leave-one-out cross-validation from draws of a guide: `leave_one_out(tree, site) -> Left`.

    elpd = Σ_n log p(x_n | x_−n),   by Pareto-smoothed weights ∝ p(x, z) / (q(z) p(x_n | z)) of draws z ~ q

ArviZ does it (`arviz_stats.loo_approximate_posterior`); N observations.

References: Vehtari, Gelman & Gabry 2017, Practical Bayesian model evaluation using leave-one-out cross-validation and
WAIC; Magnusson, Andersen, Jonasson & Vehtari 2019, Bayesian leave-one-out cross-validation for large data.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Left:
    """elpd in nats, its standard error over observations, effective number of parameters, k-hat (N,)."""

    elpd: float
    error: float
    parameters: float
    khat: np.ndarray
    threshold: float
    pointwise: np.ndarray  # (N,) nats

    @property
    def share(self) -> float:
        """Share of observations whose k-hat is above the threshold."""
        return float(np.mean(self.khat > self.threshold))

    def numbers(self) -> dict[str, float]:
        """For diagnostics.json."""
        return {"elpd": self.elpd, "elpd_se": self.error, "parameters": self.parameters, "khat_above": self.share}


def leave_one_out(tree: Any, site: str) -> Left:
    """PSIS-LOO of one observed site of a tree of draws with one joint weight each (see `draw_tree`)."""
    from arviz_stats.loo.loo_approximate_posterior import loo_approximate_posterior

    stats = tree["sample_stats"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a k-hat that is too large: the verdict says it
        found = loo_approximate_posterior(tree, stats["lp"], stats["log_q"], pointwise=True, var_name=site)
    khat = np.ravel(found.pareto_k.values)
    return Left(
        float(found.elpd), float(found.se), float(found.p), khat, float(found.good_k), np.ravel(found.elpd_i.values)
    )
