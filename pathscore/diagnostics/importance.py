"""How good the guide is as a proposal, for each data point: everything that its importance weights tell.

`importance(log_w) -> Importance` takes log w = log p(x, z) − log q(z | x) of S draws, (S,) or (S, *common), as numpy or
torch, and returns one number a data point: Pareto k-hat, relative effective sample size, log p(x), the ELBO, their
gap KL(q ‖ p). The joint weight of a whole data set says nothing about any of its points: keep the plates.

References: Vehtari, Simpson, Gelman, Yao & Gabry 2024, Pareto smoothed importance sampling; Yao, Vehtari, Simpson &
Gelman 2018, Yes, but did it work?; Burda, Grosse & Salakhutdinov 2016, Importance weighted autoencoders.
"""

from dataclasses import dataclass

import numpy as np
import torch

from pathscore.errors import NumericsError, UsageError

MIN_DRAWS = 25
"""Fewer draws leave fewer than five in the tail that k-hat is fitted to."""

FLAT = 1e-3
"""Log weights within this many nats are equal up to float32 rounding of log p and log q: no tail to fit."""


@dataclass(frozen=True)
class Importance:
    """Per data point, arrays of the plates' shape (): `khat` is −inf for flat weights, NaN where it can't be fitted."""

    draws: int
    khat: np.ndarray
    relative_ess: np.ndarray  # of the Pareto-smoothed weights, 0 … 1
    log_evidence: np.ndarray  # nats; a lower bound in expectation, tight as S grows
    log_evidence_se: np.ndarray  # Monte Carlo, by the delta method
    elbo: np.ndarray  # nats
    elbo_se: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """log p(x) − ELBO = KL(q(z | x) ‖ p(z | x)), nats."""
        return self.log_evidence - self.elbo

    @property
    def khat_threshold(self) -> float:
        """min(1 − 1 / log₁₀ S, 0.7): above it the S draws are too few for the estimate (Vehtari et al. 2024)."""
        return min(1 - 1 / np.log10(max(self.draws, 11)), 0.7)


def importance(log_w) -> Importance:
    """Summarise S log weights per data point; raises UsageError for one draw, NumericsError for NaN or +Inf weights.

    A weight of zero (log w = −Inf: a draw where the model has no density) counts as a draw; all of them zero is an
    error.
    """
    logs = np.asarray(log_w.detach().cpu() if torch.is_tensor(log_w) else log_w, dtype=np.float64)
    _check(logs)
    draws = len(logs)
    flat = logs.reshape(draws, -1)
    smooth, khat = smoothed(flat)
    top = flat.max(0)
    w = np.exp(flat - top)
    with np.errstate(invalid="ignore"):
        elbo_se = flat.std(0, ddof=1) / np.sqrt(draws)
    shape = logs.shape[1:]
    return Importance(
        draws=draws,
        khat=khat.reshape(shape),
        relative_ess=(1 / (draws * (smooth**2).sum(0))).reshape(shape),
        log_evidence=(top + np.log(w.mean(0))).reshape(shape),
        log_evidence_se=(w.std(0, ddof=1) / w.mean(0) / np.sqrt(draws)).reshape(shape),
        elbo=flat.mean(0).reshape(shape),
        elbo_se=elbo_se.reshape(shape),
    )


def _check(logs: np.ndarray) -> None:
    if logs.ndim == 0 or len(logs) < 2:
        raise UsageError("importance diagnostics need at least two draws a data point: ask for more with draws=")
    bad = int(np.isnan(logs).sum() + np.isposinf(logs).sum())
    if bad:
        raise NumericsError(
            f"{bad} of {logs.size} log weights are NaN or +Inf: log p or log q is not finite there; "
            "check the data and the last checkpoint"
        )
    if np.isneginf(logs.max(0)).any():
        raise NumericsError("every draw of some data point has zero density under the model (log p = −Inf)")


def smoothed(log_w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pareto-smoothed weights that sum to 1, (S, N), and k-hat, (N,), one fit a data point.

    Flat weights have no tail: k-hat is −inf and the weights stay as they are. With fewer than 25 draws, or where the
    fit fails, k-hat is NaN and the weights are the raw ones.
    """
    weights = np.exp(log_w - log_w.max(0))
    weights /= weights.sum(0)
    khat = np.full(log_w.shape[1], np.nan)
    for i, logs in enumerate(log_w.T):
        if np.ptp(logs) < FLAT:
            khat[i] = -np.inf
        elif len(logs) >= MIN_DRAWS:
            fitted = _fit(logs)
            if fitted is not None:
                weights[:, i], khat[i] = fitted
    return weights, khat


def _fit(logs: np.ndarray) -> tuple[np.ndarray, float] | None:
    """ArviZ's fit for one data point, which raises for tails it can't fit (many equal weights); None then."""
    from arviz_stats.base.array import array_stats

    try:
        with np.errstate(all="ignore"):  # equal weights in the tail divide by zero; the fit is then not finite
            # psislw takes the *negative* log weight and returns the log of the smoothed one.
            log_smooth, khat = array_stats.psislw(-np.maximum(logs, logs.max() - 700))
            smooth = np.exp(log_smooth - log_smooth.max())
    except (ValueError, IndexError, ZeroDivisionError):
        return None
    return (smooth / smooth.sum(), float(khat)) if np.isfinite(smooth).all() and np.isfinite(khat) else None
