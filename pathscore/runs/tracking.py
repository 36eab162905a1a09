"""Gradient variance during training: `Tracker(job, names, x)() -> {"gradient_variance": {name: total variance}}`.

Every estimator is measured at the run's present parameters on the same few data points, so the curves differ only by
the estimator. Training is not changed, because the tracker draws from a separate random stream. Learned baselines and
control variates are trained for a few steps at each call. They are not kept in checkpoints.
"""

from __future__ import annotations

from typing import Any

from pathscore.data import Arguments
from pathscore.evaluation.validation import evaluating
from pathscore.gradients.lab import Lab, read_estimators
from pathscore.machine.streams import beside
from pathscore.runs.measuring import DATA, settings_of

ADAPT = 20
REPLICATES = 200


class Tracker:
    """Measures the named estimators at each call.

    job: a `pathscore.runs.assembly.Assembly`. names: as for `--estimators`. args: held-out data, of which the first
    eight rows are used. settings: objective, particles and options of `Lab`.

    Raises: UsageError for an estimator that does not support the program.
    """

    def __init__(self, job: Any, names: str, args: Arguments, **settings: Any) -> None:
        self.job, self.calls = job, 0
        args = tuple(tensor[:DATA] for tensor in args) if job.local else job.training
        with job.svi.scope(), evaluating(job.svi):
            self.lab = Lab(job.svi.model, job.svi.guide, args, **{**settings_of(job.config), **settings})
            self.elbos = self.lab.objectives(read_estimators(names))

    def __call__(self) -> dict[str, Any]:
        """The variance of one gradient, summed over the sites' parameters, by estimator, at the present parameters."""
        self.calls += 1
        found = {}
        svi = self.job.svi
        with svi.scope(), evaluating(svi), beside(svi.device(), "track", self.job.config.seed, self.calls):
            for name, elbo in self.elbos.items():
                self.lab.learn(elbo, ADAPT)
                moments, _, _ = self.lab.draw(elbo, REPLICATES)
                found[name] = moments.variance.sum().item()
        return {"gradient_variance": found}
