"""The bench: one program pair, and an objective for each estimator to be measured on it.

`Lab(model, guide, args)`, `lab.objectives(estimators) -> {label: objective}`, `lab.learn(objective, steps)` and
`lab.draw(objective, N) -> (moments, ELBO, seconds)`.  Parameters are read at each call, so a lab can follow a training
run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pathscore.elbos import make_elbo
from pathscore.elbos import objective as find_objective
from pathscore.elbos.plan import read_spec
from pathscore.errors import UsageError, unknown
from pathscore.estimators import ESTIMATORS, Estimator
from pathscore.gradients.moments import Moments
from pathscore.gradients.replicates import Replicates, Weights

SOURCES: dict[str, type[Replicates] | type[Weights]] = {"sites": Replicates, "weights": Weights}
LEARN_REPLICATES = 64
LEARN_RATE = 1e-2

Specs = Iterable[str | Estimator] | Mapping[str, Any] | None


class Lab:
    """A program pair on the bench.

    particles: K, raised to an objective's least, and to an estimator's where K does not change the bound. elbo,
    options: the objective and its further arguments. of: "sites" or "weights", what the gradient is by.

    Attributes:
        pair: the programs with their replicates (replicates.py).
        refused: estimators that `objectives` left out, with the reason.
    """

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
        *,
        particles: int = 1,
        elbo: str = "trace",
        of: str = "sites",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if of not in SOURCES:
            raise unknown("gradient", of, SOURCES)
        self.pair = SOURCES[of](model, guide, args, kwargs)
        self.particles = max(particles, find_objective(elbo).min_particles)
        self.elbo, self.of, self.options = elbo, of, dict(options or {})
        self.refused: dict[str, str] = {}
        self._optimisers: dict[int, torch.optim.Optimizer] = {}

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        return next((a.device for a in self.pair.args if isinstance(a, Tensor)), torch.device("cpu"))

    def objectives(self, estimators: Specs = None, skip_illegal: bool | None = None) -> dict[str, Any]:
        """An objective for each label.

        skip_illegal: leave out (`refused`) what cannot serve the program; None: only where no estimator was named.

        Raises: UsageError for one that cannot serve, or when none is left.
        """
        skip = estimators is None if skip_illegal is None else skip_illegal
        found = {}
        for label, spec in labelled(estimators).items():
            try:
                found[label] = self.objective(spec)
            except UsageError as error:
                if not skip:
                    raise
                self.refused[label] = str(error)
        if not found:
            raise UsageError("no estimator can serve this program: " + "; ".join(self.refused.values()))
        return found

    def objective(self, spec: Any) -> Any:
        """The objective with the estimators of one spec, planned and ready to draw."""
        least = max((e.min_particles for e in read_spec(spec).values()), default=1)
        # Where particles share weights, K is part of the objective: more of them would be another bound.
        count = self.particles if find_objective(self.elbo).credit == "weights" else max(self.particles, least)
        elbo: Any = make_elbo(self.elbo, spec, num_particles=count, max_plate_nesting=self.pair.nesting, **self.options)
        self.plan(elbo)
        return elbo

    def plan(self, elbo: Any) -> Any:
        """The plan of an objective: its sites, estimators and rows."""
        return elbo.prepare(self.pair.model, self.pair.guide, *self.pair.args, **self.pair.kwargs)

    def draw(self, elbo: Any, count: int) -> tuple[Moments, float, float]:
        """Moments of `count` gradients, the mean ELBO in nats, and the seconds that drawing them took."""
        moments, bound, seconds, most = Moments(), 0.0, 0.0, self.pair.most(self.plan(elbo).rows)
        while moments.count < count:
            n = min(most, count - moments.count)
            start = time.perf_counter()
            gradients, value = self.pair.draw(elbo, n)
            seconds += time.perf_counter() - start
            moments.add(gradients)
            bound += value * n / count
        return moments, bound, seconds

    def learn(self, elbo: Any, steps: int) -> None:
        """Train what the objective's estimators learn on 64 replicates a step, and freeze it."""
        learned = list(elbo.estimators.parameters())
        if learned and id(elbo) not in self._optimisers:
            self._optimisers[id(elbo)] = torch.optim.Adam(learned, lr=LEARN_RATE)
        has_state = bool(learned) or any(True for _ in elbo.estimators.buffers())
        elbo.estimators.train()
        for _ in range(steps if has_state else 0):
            self.pair.teach(elbo, learned, LEARN_REPLICATES)
            if learned:
                self._optimisers[id(elbo)].step()
        elbo.estimators.eval()


def labelled(estimators: Specs) -> dict[str, Any]:
    """Labels → specs; every name of the table if none are given."""
    if estimators is None:
        return {name: name for name in ESTIMATORS if name != "auto"}
    if isinstance(estimators, Mapping):
        return {str(label): spec for label, spec in estimators.items()}
    if isinstance(estimators, str):
        estimators = [estimators]
    return {spec if isinstance(spec, str) else spec.name: spec for spec in estimators}


def read_estimators(text: str | None) -> list[str] | None:
    """The estimators of a word of the command line: names between commas, or whole specs between semicolons."""
    if text is None:
        return None
    bare = re.sub(r"\([^()]*\)", "", text)
    mark = ";" if ";" in bare or "=" in bare else ","
    names = [part.strip() for part in re.split(rf"{mark}(?![^()]*\))", text)]  # marks outside parentheses
    if not all(names):
        raise UsageError(f"estimators {text!r}: there is an empty part, write NAME,NAME or SPEC;SPEC")
    return names
