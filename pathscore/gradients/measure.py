"""The gradient lab: what each estimator's gradient looks like at fixed parameters and a fixed batch.

    measure(model, guide, x, estimators=["score", "rloo"], replicates=40_000) -> Comparison

Every estimator draws N gradients (replicates.py); their moments are held against the exact gradient (reference.py).
Learned parts — baselines, η, τ, control networks — are first trained on draws of their own, then frozen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor

from pathscore.elbos import make_elbo
from pathscore.elbos.plan import read_spec
from pathscore.errors import UsageError
from pathscore.estimators import ESTIMATORS, Estimator
from pathscore.gradients.moments import Moments
from pathscore.gradients.reference import find_exact, long_run
from pathscore.gradients.replicates import Pair, Replicates, Weights
from pathscore.gradients.results import Comparison, Run, rows_of
from pathscore.streams import beside

SOURCES: dict[str, type[Replicates] | type[Weights]] = {"sites": Replicates, "weights": Weights}
WARM_REPLICATES = 64
WARM_RATE = 1e-2

Specs = Iterable[str | Estimator] | Mapping[str, Any] | None


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
    options: Mapping[str, Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Comparison:
    """Bias, variance, signal and cost of gradient estimators on one program pair, which stays unedited.

    estimators: names, specs as on the command line ("z1=disarm,z2=rloo"), estimators, or a mapping from labels to
        any of these; every legal name if not given.
    replicates: N, gradients drawn with each. particles: K, raised to an estimator's least.
    warmup: steps in which learned parts are trained before they are frozen, on 64 replicates each.
    of: "sites", the gradient by the parameters of the sites' own distributions (one backward pass for many
        replicates), or "weights", by the guide's registered parameters (one pass each).
    options: further arguments of the objective. args, kwargs: of model and guide.

    Random numbers are drawn beside the global stream, the same for every estimator. The parameter store is left as
    it was.

    Raises: UsageError for an estimator that cannot serve the program (named by the caller), or none that can.
    """
    if replicates < 2:
        raise UsageError(f"--replicates must be at least 2, got {replicates}")
    store = pyro.get_param_store()
    with store.scope(store.get_state()), beside(_device(args), "gradients", seed):
        pair = SOURCES[of](model, guide, args, dict(kwargs or {}))
        build = _builder(elbo, pair, particles, dict(options or {}))
        runs, refused = [], {}
        for label, spec in _labelled(estimators).items():
            try:
                lab = build(label, spec)
            except UsageError as error:
                if estimators is not None:
                    raise
                refused[label] = str(error)
                continue
            runs.append(_run(lab, pair, label, replicates, warmup, seed))
        if not runs:
            raise UsageError("no estimator can serve this program: " + "; ".join(refused.values()))
        target = find_exact(pair, elbo) or long_run(pair, runs, 4 * replicates, seed, draw_moments)
        return Comparison(title, target, rows_of(runs, target), replicates, warmup, seed, elbo, of, refused)


def draw_moments(elbo: Any, pair: Pair, rows: int, count: int) -> tuple[Moments, float, float]:
    """Moments of `count` gradients, the mean ELBO in nats, and the seconds that drawing them took."""
    moments, bound, seconds, most = Moments(), 0.0, 0.0, pair.most(rows)
    while moments.count < count:
        n = min(most, count - moments.count)
        start = time.perf_counter()
        gradients, value = pair.draw(elbo, n)
        seconds += time.perf_counter() - start
        moments.add(gradients)
        bound += value * n / count
    return moments, bound, seconds


def warm_up(elbo: Any, pair: Pair, steps: int, optimiser: torch.optim.Optimizer | None = None) -> None:
    """Train what the objective's estimators learn, for `steps` steps on draws of their own, and freeze it."""
    learned = list(elbo.estimators.parameters())
    if not learned and not any(True for _ in elbo.estimators.buffers()):
        steps = 0
    if learned and optimiser is None:
        optimiser = torch.optim.Adam(learned, lr=WARM_RATE)
    elbo.estimators.train()
    for _ in range(steps):
        pair.teach(elbo, learned, WARM_REPLICATES)
        if optimiser is not None:
            optimiser.step()
    elbo.estimators.eval()


def _labelled(estimators: Specs) -> dict[str, Any]:
    if estimators is None:
        return {name: name for name in ESTIMATORS if name != "auto"}
    if isinstance(estimators, Mapping):
        return {str(label): spec for label, spec in estimators.items()}
    if isinstance(estimators, str):
        estimators = [estimators]
    return {spec if isinstance(spec, str) else spec.name: spec for spec in estimators}


def _builder(name: str, pair: Pair, particles: int, options: dict[str, Any]) -> Callable[[str, Any], Any]:
    def build(label: str, spec: Any) -> Any:
        least = max((e.min_particles for e in read_spec(spec).values()), default=1)
        elbo: Any = make_elbo(
            name, spec, num_particles=max(particles, least), max_plate_nesting=pair.nesting, **options
        )
        elbo.prepare(pair.model, pair.guide, *pair.args, **pair.kwargs)
        return elbo

    return build


def _run(elbo: Any, pair: Pair, label: str, replicates: int, warmup: int, seed: int) -> Run:
    plan = elbo.prepare(pair.model, pair.guide, *pair.args, **pair.kwargs)
    device = _device(pair.args)
    with beside(device, "warm-up", seed):
        warm_up(elbo, pair, warmup)
        pair.draw(elbo, 2)  # the first pass builds caches
    with beside(device, "draws", seed):
        moments, bound, seconds = draw_moments(elbo, pair, plan.rows, replicates)
    chosen = [site.estimator for site in plan.sites.values()]
    return Run(
        name=label,
        unbiased=all(e.unbiased for e in chosen),
        particles=plan.particles,
        evaluations=plan.rows,
        elbo=elbo,
        bound=bound,
        moments=moments,
        milliseconds=1e3 * seconds / replicates,
        groups=pair.groups(),
    )


def _device(args: tuple) -> torch.device:
    return next((a.device for a in args if isinstance(a, Tensor)), torch.device("cpu"))
