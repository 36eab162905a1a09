"""The gradient lab: what each estimator's gradient looks like at fixed parameters and a fixed batch.

    measure(model, guide, x, estimators=["score", "rloo"], replicates=40_000) -> Comparison

Every estimator draws N gradients (lab.py, replicates.py); their moments are compared with the exact gradient
(reference.py).  Learned parts — baselines, η, τ, control networks — are first trained on draws of their own, then
frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyro

from pathscore.errors import PathscoreError, UsageError
from pathscore.gradients.budget import Budget, progress_bar
from pathscore.gradients.lab import Lab, Specs
from pathscore.gradients.reference import find_exact, long_run
from pathscore.gradients.results import Comparison, Run, rows_of
from pathscore.machine.streams import beside
from pathscore.svi.pairs import takes_svi


@takes_svi
def measure(
    model: Callable,
    guide: Callable,
    *args: Any,
    estimators: Specs = None,
    replicates: int = 10_000,
    particles: int = 1,
    elbo: str = "trace",
    warmup: int = 200,
    seed: int = 0,
    of: str = "sites",
    title: str = "",
    skip_illegal: bool | None = None,
    options: Mapping[str, Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    seconds: float | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Bias, variance, signal and cost of gradient estimators on one program pair, which stays unedited.

    `measure(svi, x)` measures at the parameters of a run.

    An estimator that is named alone serves the sites it can, and `auto` the others: "y=disarm, z=pathwise". A program
    that does not broadcast is measured pass by pass.

    estimators: names, specs as on the command line ("z1=disarm,z2=rloo"), estimators, or a mapping from labels to
        any of these; every legal name if not given.
    replicates: N, gradients drawn with each. particles: K, raised to an estimator's least.
    warmup: steps in which learned baselines and control variates are trained before they are frozen, on 64 replicates
        each.
    of: "sites", the gradient by the parameters of the sites' own distributions (one backward pass for many
        replicates), "weights", by the guide's registered parameters (one pass each), or "all", by the model's too.
    skip_illegal: leave out what cannot serve the program; None: only where no estimator was named.
    seconds: about how long the measurement may take; each estimator then draws up to `replicates`, as many as fit.
    progress: show a bar; None: on a terminal.
    options: further arguments of the objective. args, kwargs: of model and guide.

    Random numbers are drawn beside the global stream, the same for every estimator. The parameter store is left as
    it was.

    Raises: UsageError for an estimator that cannot serve the program, or fewer than two replicates.
    """
    for name, value in (("replicates", replicates), ("particles", particles), ("warmup", warmup)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise UsageError(f"{name} must be a whole number, got {value!r}")
    if replicates < 2:
        raise UsageError(f"--replicates must be at least 2, got {replicates}")
    store = pyro.get_param_store()
    with store.scope(store.get_state()):
        lab = Lab(model, guide, args, dict(kwargs or {}), particles=particles, elbo=elbo, of=of, options=options)
        objectives = lab.objectives(estimators, skip_illegal)
        skip = estimators is None if skip_illegal is None else skip_illegal
        budget = Budget(seconds, 2 * len(objectives) + 4)  # learning and drawing; the reference counts four
        with progress_bar(len(objectives) + 1, progress) as bar:
            runs = list(_runs(lab, objectives, (replicates, warmup, seed), budget, bar, skip))
            bar.set_description("reference")
            budget.parts = 1
            target = find_exact(lab) or long_run(lab, runs, 4 * replicates, seed, budget.next())
        drawn = min(run.moments.count for run in runs)
        return Comparison(title, target, rows_of(runs, target), drawn, warmup, seed, elbo, of, lab.refused)


def _runs(
    lab: Lab, objectives: dict[str, Any], sizes: tuple[int, int, int], budget: Budget, bar: Any, skip: bool
) -> Iterator[Run]:
    """The runs of all objectives; one that the program fails under is left out by name, or ends the measurement."""
    found = 0
    for label, objective in objectives.items():
        bar.set_description(label)
        try:
            run = _run(lab, objective, label, *sizes, budget)
        except PathscoreError:
            raise
        except Exception as error:
            reason = lab.failure(label, error)
            if not skip:
                raise reason from error
            lab.refused[label] = str(reason)
        else:
            found += 1
            yield run
        bar.update()
    if not found:
        raise UsageError("no estimator can serve this program: " + "; ".join(lab.refused.values()))


def _run(lab: Lab, elbo: Any, label: str, replicates: int, warmup: int, seed: int, budget: Budget) -> Run:
    plan = lab.plan(elbo)
    with beside(lab.device, "learning", seed):
        lab.learn(elbo, warmup, budget.next())
        lab.pair.draw(elbo, 2)  # the first pass builds caches
    with beside(lab.device, "draws", seed):
        moments, bound, seconds = lab.draw(elbo, replicates, budget.next())
    return Run(
        name=label,
        unbiased=all(site.estimator.unbiased for site in plan.sites.values()),
        particles=plan.particles,
        evaluations=plan.rows,
        elbo=elbo,
        bound=bound,
        moments=moments,
        milliseconds=1e3 * seconds / moments.count,
        groups=lab.pair.groups(),
    )
