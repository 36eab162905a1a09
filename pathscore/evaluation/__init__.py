"""How good a trained model/guide pair is: bounds on the log-likelihood, rate and distortion, active units.

`evaluate(model, guide, x, …) -> dict` computes the figures of a run's summary. The functions behind it can be called
separately. All of them take any Pyro pair and data whose points lie in one plate (see `weights`). They draw from a
random stream of their own, compute no gradient and change no global settings. Each takes a trained `SVI`
in place of model and guide: `evaluate(svi, x)`.
"""

import torch

from pathscore.evaluation import annealing, bounds, shared, units
from pathscore.evaluation.annealing import AISResult
from pathscore.evaluation.bounds import Elbo, standard_error
from pathscore.evaluation.units import THRESHOLD
from pathscore.evaluation.weights import Data, Program
from pathscore.svi.pairs import takes_svi

__all__ = [
    "AISResult",
    "Elbo",
    "active_units",
    "activity",
    "ais",
    "elbo",
    "evaluate",
    "evaluate_whole",
    "exact_log_likelihood",
    "importance_bound",
    "predictive_density",
    "standard_error",
    "whole_bound",
]

active_units = takes_svi(units.active_units)
activity = takes_svi(units.activity)
ais = takes_svi(annealing.ais)
elbo = takes_svi(bounds.elbo)
evaluate_whole = takes_svi(shared.evaluate_whole)
exact_log_likelihood = takes_svi(bounds.exact_log_likelihood)
importance_bound = takes_svi(bounds.importance_bound)
predictive_density = takes_svi(shared.predictive_density)
whole_bound = takes_svi(shared.whole_bound)


@takes_svi
def evaluate(
    model: Program,
    guide: Program,
    x: torch.Tensor | Data,
    *,
    samples: int = 10,
    importance_samples: int = 100,
    seed: int = 0,
    progress: bool | None = None,
) -> dict:
    """The figures of a run's summary on test data x (N, X), in nats per data point; or `evaluate(svi, x)`.

    test_elbo and test_elbo_se: mean and standard error over the data, `samples` draws each; rate + distortion =
    −test_elbo. test_log_likelihood (with _se and _samples): the K-sample bound, K = `importance_samples`; None where K
    is 0. active_units: the number of latent variables that are used, of `units`; active_units_by_site the same site by
    site.

    Raises UsageError when the programs do not keep each data point in a plate.
    """
    parts = bounds.elbo(model, guide, x, samples=samples, seed=seed)
    moved = units.activity(model, guide, x, seed=seed + 2)
    by_site = {name: int((a > THRESHOLD).sum()) for name, a in moved.items()}
    found = {
        "test_elbo": parts.elbo.mean().item(),
        "test_elbo_se": standard_error(parts.elbo),
        "test_log_likelihood": None,
        "test_log_likelihood_se": None,
        "test_log_likelihood_samples": importance_samples,
        "active_units": sum(by_site.values()),
        "active_units_by_site": by_site,
        "units": sum(map(len, moved.values())),
        "rate": parts.rate.mean().item(),
        "distortion": parts.distortion.mean().item(),
    }
    if importance_samples:
        bound = bounds.importance_bound(
            model, guide, x, num_particles=importance_samples, seed=seed + 1, progress=progress
        )
        found |= {"test_log_likelihood": bound.mean().item(), "test_log_likelihood_se": standard_error(bound)}
    return found
