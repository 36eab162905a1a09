"""Which estimator: `recommend(model, guide, x, seconds=30) -> Recommendation`, measured on the program itself.

    print(pathscore.recommend(model, guide, x))
    print(pathscore.recommend(svi, x))              what `svi` uses is "today", at its present parameters

The measure is variance × time. The gradient is that of all parameters of model and guide, at fixed parameters and a
fixed batch. The time is that of a forward and a backward pass of the objective, as a training step has them. A racing
rule (racing.py) drops losers early; searching.py takes one group of sites after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyro

from pathscore.compiling.compiled_elbo import CompiledELBO
from pathscore.elbos.plan import read_spec
from pathscore.elbos.site import SiteELBO
from pathscore.errors import PathscoreError, UsageError
from pathscore.gradients.budget import Budget, progress_bar
from pathscore.gradients.candidates import chosen_among, grouped, require_free, standing, words_for
from pathscore.gradients.filling import by_site
from pathscore.gradients.lab import Lab
from pathscore.gradients.racing import Block
from pathscore.gradients.recommendation import Recommendation, summarised
from pathscore.gradients.searching import Spec, parts, search
from pathscore.gradients.steps import block, gradients
from pathscore.machine.streams import beside
from pathscore.svi import SVI
from pathscore.svi.pairs import takes_svi

LEARNING_STEPS = 200
LEARNING_SHARE = 0.3
"""Steps in which what an estimator learns is trained before it races, and the share of a race's time they may take."""


@dataclass(frozen=True)
class Request:
    """What `recommend` was asked: its arguments beside the programs and theirs."""

    seconds: float
    elbo: str
    particles: int
    today: Any
    sites: Collection[str] | None
    biased: bool
    compiled: bool
    seed: int
    options: Mapping[str, Any] | None
    kwargs: dict[str, Any]
    progress: bool | None


def recommend(
    model: Callable | SVI,
    *args: Any,
    seconds: float = 30.0,
    elbo: str = "trace",
    particles: int | None = None,
    today: Any = "auto",
    sites: Collection[str] | None = None,
    biased: bool = False,
    compiled: bool = False,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Recommendation:
    """The estimator of each site with the least variance × time, measured for about so many seconds.

    `recommend(model, guide, x)`, or `recommend(svi, x)` for the parameters, particles and estimators of a run.

    elbo, options: the objective by name, and its further arguments. particles: K, the same for all candidates; 1 if not
        given, or the least of what is used today. An estimator that needs more is no candidate.
    today: what is used so far, a spec as `make_elbo` takes it (None: Pyro's own gradient): the gain is against it, and
        it wins a tie. sites: where to choose; the others keep what is used today. All sites if not given.
    biased: relaxations and straight-through gradients are candidates too. Their bias is not measured here.
    compiled: measure steps that are one compiled graph. Building them, some 10 s each, comes on top of the time.
    seed: of the draws; the times are the machine's. progress: show a bar; None: on a terminal.

    The parameter store, the random stream and the programs are left as they were.

    Raises: UsageError for a program without latent sites or parameters, one that names its estimators itself, or an
    objective that takes none.
    """
    if not 0 < seconds < float("inf"):
        raise UsageError(f"seconds must be positive and finite, got {seconds!r}")
    if isinstance(model, SVI):
        own = model.elbo
        today = own.spec or None if isinstance(own, SiteELBO) else None
        particles = particles or own.num_particles
    particles = particles or max((e.min_particles for e in read_spec(today).values()), default=1)
    request = Request(
        *(seconds, elbo, particles, today, sites, biased, compiled, seed, options, dict(kwargs or {}), progress)
    )
    return _with_svi(model, *args, request=request)


def _recommended(model: Callable, guide: Callable, *args: Any, request: Request) -> Recommendation:
    start = time.perf_counter()
    store = pyro.get_param_store()
    with store.scope(store.get_state()), progress_bar(max(1, round(request.seconds)), request.progress) as bar:
        lab = Lab(
            *(model, guide, args, request.kwargs),
            **{"particles": request.particles, "elbo": request.elbo, "of": "all", "options": request.options},
        )
        require_free(lab.pair.latents)
        used, auto = standing(lab, request.today), standing(lab, "auto")
        groups = grouped(chosen_among(lab.pair.latents, request.sites))
        bench = Live(lab, request.seed, request.compiled, bar, {(n, w): e for n, (w, e) in used.items()})
        words = {group: words_for(lab, group, request.biased) for group in groups}
        names = {name for group in groups for name in group.names}
        today = {name: word for name, (word, _) in used.items()}
        begin = {name: auto[name][0] if name in names else word for name, word in today.items()}
        left = request.seconds - (time.perf_counter() - start)
        result = search(bench, groups, words, today, begin, Budget(left, parts(groups)))
    return summarised(result, lab, time.perf_counter() - start, bench.building, bench.refused)


_recommended.__name__ = "recommend"  # which warnings name
_with_svi: Callable[..., Recommendation] = takes_svi(_recommended)


class Live:
    """Steps of a program on this machine.

    means: the estimator of (site, word) where the word alone does not make it. building: seconds that compiling took.
    refused: what failed, with the reason.
    """

    def __init__(self, lab: Lab, seed: int, compiled: bool, bar: Any, means: Mapping[tuple[str, str], Any]) -> None:
        self.lab, self.seed, self.compiled, self.bar, self.means = lab, seed, compiled, bar, means
        self.building = 0.0
        self.refused: dict[str, str] = {}
        self._made: dict[tuple, Any] = {}
        self._start, self._shown = self.clock(), 0

    def clock(self) -> float:
        """Seconds, without those that compiling took."""
        return time.perf_counter() - self.building

    def objective(self, spec: Spec) -> Any:
        """The objective of a spec: one for each, which keeps what it has learned."""
        key = tuple(sorted(spec.items()))
        if key not in self._made:
            self._made[key] = self.lab.objective({n: self.means.get((n, w), w) for n, w in spec.items()})
        return self._made[key]

    def usable(self, specs: Mapping[str, Spec], end: float) -> dict[str, Spec]:
        """Specs that a first step works with; what they learn is trained. Half of the time may go into laying them out.

        Raises: UsageError where there is none.
        """
        start, found = self.clock(), {}
        half = start + 0.5 * max(0.0, end - start)
        for label, spec in specs.items():
            if found and self.clock() >= half:
                break
            if self._try(spec, self.objective):
                found[label] = spec
            self.report("first steps", len(specs))
        learners = sum(_learns(self.objective(spec)) for spec in found.values())
        share = LEARNING_SHARE * max(0.0, end - self.clock()) / max(1, learners)
        found = {label: spec for label, spec in found.items() if self._try(spec, lambda s: self._prepare(s, share))}
        if not found:
            raise UsageError("no estimator can serve this program: " + "; ".join(self.refused.values()))
        return found

    def _try(self, spec: Spec, work: Callable[[Spec], Any]) -> bool:
        """Whether the work is done; what the program raises is noted as a refusal."""
        try:
            work(spec)
        except Exception as error:
            reason = error if isinstance(error, PathscoreError) else self.lab.failure(by_site(spec), error)
            self.refused[by_site(spec)] = str(reason)
            return False
        return True

    def block(self, spec: Spec, at: int) -> Block:
        """A few steps, in the same random stream for every spec."""
        return block(self.lab, self.objective(spec), "recommend", self.seed, at)

    def report(self, what: str, left: int) -> None:
        """Move the bar to the present second."""
        passed = min(int(self.clock() - self._start), self.bar.total or 0)
        self.bar.set_description(f"{what}: {left} left", refresh=False)
        self.bar.update(passed - self._shown)
        self._shown = passed

    def _prepare(self, spec: Spec, share: float) -> None:
        elbo = self.objective(spec)
        if isinstance(elbo, CompiledELBO):
            return
        with beside(self.lab.device, "learning", self.seed):
            self.lab.learn(elbo, LEARNING_STEPS, time.perf_counter() + share)
        gradients(self.lab, elbo, 1, "first", self.seed)  # it builds caches
        if self.compiled:
            self._compile(spec)

    def _compile(self, spec: Spec) -> None:
        """Put the graph in place of the objective; the clock stands still meanwhile."""
        start = time.perf_counter()
        key = tuple(sorted(spec.items()))
        self._made[key] = CompiledELBO(self._made[key])
        gradients(self.lab, self._made[key], 2, "first", self.seed)  # the second one builds
        self.building += time.perf_counter() - start


def _learns(elbo: Any) -> bool:
    """Whether the objective's estimators have anything to learn, running averages included."""
    return any(True for _ in elbo.estimators.parameters()) or any(True for _ in elbo.estimators.buffers())
