"""The bench: one program pair, and an objective for each estimator to be measured on it.

`Lab(model, guide, args)`, `lab.objectives(estimators) -> {label: objective}`, `lab.learn(objective, steps)` and
`lab.draw(objective, N) -> (moments, ELBO, seconds)`.  Parameters are read at each call, so a lab can follow a training
run.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pathscore.elbos import make_elbo
from pathscore.elbos import objective as find_objective
from pathscore.elbos.plan import read_spec
from pathscore.errors import PathscoreError, UsageError, in_short, unknown
from pathscore.estimators import ESTIMATORS, Estimator
from pathscore.gradients.filling import filled
from pathscore.gradients.moments import Moments
from pathscore.gradients.replicates import Pair, Weights, by_sites, one_by_one
from pathscore.gradients.steps import Everything
from pathscore.programs.broadcasting import warn_of_passes

SOURCES: dict[str, Callable[..., Pair]] = {"sites": by_sites, "weights": Weights, "all": Everything}
LEARN_REPLICATES = 64
LEARN_RATE = 1e-2
FIRST_PASS = 16
"""Replicates of the first pass under a limit of time."""

Specs = Iterable[str | Estimator] | Mapping[str, Any] | None


class Lab:
    """A program pair on the bench.

    particles: K, raised to an objective's least, and to an estimator's where K does not change the bound. elbo,
    options: the objective and its further arguments. of: "sites", "weights" or "all", what the gradient is by.

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
        self._one_by_one = partial(one_by_one, model, guide, args, kwargs)
        if self.pair.obstacle is not None:
            warn_of_passes(self.pair.obstacle)
        self.particles = max(particles, find_objective(elbo).min_particles)
        self.elbo, self.of, self.options = elbo, of, dict(options or {})
        self.refused: dict[str, str] = {}
        self._asked: Any = None
        self._optimisers: WeakKeyDictionary[Any, torch.optim.Optimizer] = WeakKeyDictionary()

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        return next((a.device for a in self.pair.args if isinstance(a, Tensor)), torch.device("cpu"))

    def objectives(self, estimators: Specs = None, skip_illegal: bool | None = None) -> dict[str, Any]:
        """An objective for each label.

        An estimator named alone is given to the sites that it can serve, and `auto` to the others; the label says so.

        skip_illegal: leave out (`refused`) what cannot serve the program; None: only where no estimator was named.

        Raises: UsageError for one that cannot serve, or when none is left.
        """
        skip = estimators is None if skip_illegal is None else skip_illegal
        named = labelled(estimators).values() if estimators is not None else ()
        if self.of == "sites" and any(e.perturbs_rows for given in named for e in read_spec(given).values()):
            self.pair = self._one_by_one()  # a plate of replicates would be rows of its own
        found = {}
        for name, given in labelled(estimators).items():
            label, spec = filled(self.pair, name, given, self.particles, self.refuse)
            if label in found:  # another name, filled to the same estimators
                continue
            try:
                found[label] = self.objective(spec)
            except Exception as error:
                reason = error if isinstance(error, PathscoreError) else self.failure(label, error)
                if not skip:
                    raise reason from error
                self.refused[label] = str(reason)
        if not found:
            raise UsageError("no estimator can serve this program: " + "; ".join(self.refused.values()))
        return found

    def failure(self, label: str, error: Exception) -> UsageError:
        """What a program raised under an estimator, in one line with the remedy."""
        sites = ", ".join(map(repr, self.pair.latents))
        other = "" if self.of == "weights" else ", or measure the gradient of the weights (of='weights')"
        return UsageError(f"{label} on the sites {sites}: {in_short(error)}: leave it out of the estimators{other}")

    def refuse(self, estimator: Estimator, site: str) -> str | None:
        """Why the objective cannot use an estimator at a site; None where it can, and where it takes none."""
        if self._asked is None:
            self._asked = make_elbo(
                self.elbo, "auto", num_particles=self.particles, max_plate_nesting=self.pair.nesting
            )
        return self._asked.refuse(estimator, site)

    def objective(self, spec: Any) -> Any:
        """The objective with the estimators of one spec, planned and ready to draw."""
        least = max((e.min_particles for e in read_spec(spec).values()), default=1)
        # Where particles share weights, K is part of the objective: more of them would be another bound.
        count = self.particles if find_objective(self.elbo).credit == "weights" else max(self.particles, least)
        elbo: Any = make_elbo(
            self.elbo,
            spec,
            num_particles=count,
            max_plate_nesting=self.pair.nesting,
            vectorize_particles=None if self.pair.obstacle is None else False,
            **self.options,
        )
        self.plan(elbo)
        return elbo

    def plan(self, elbo: Any) -> Any:
        """The plan of an objective: its sites, estimators and rows."""
        return elbo.prepare(self.pair.model, self.pair.guide, *self.pair.args, **self.pair.kwargs)

    def draw(self, elbo: Any, count: int, end: float = math.inf) -> tuple[Moments, float, float]:
        """Moments of `count` gradients, the mean ELBO in nats, and the seconds that drawing them took.

        end: the moment (`time.perf_counter`) after which no more are drawn, two at least. Passes grow from few
        replicates then, so that one does not last beyond it.
        """
        moments, total, seconds, most = Moments(), 0.0, 0.0, self.pair.most(self.plan(elbo).rows)
        n = most if end == math.inf else min(most, FIRST_PASS)
        while moments.count < 2 or (moments.count < count and time.perf_counter() < end):
            n = max(1, min(n, most, count - moments.count))
            start = time.perf_counter()
            gradients, value = self.pair.draw(elbo, n)
            took = time.perf_counter() - start
            seconds += took
            moments.add(gradients)
            total += value * n
            n = most if end == math.inf else int(n * min(4.0, max(0.1, (end - time.perf_counter()) / (2 * took))))
        return moments, total / moments.count, seconds

    def learn(self, elbo: Any, steps: int, end: float = math.inf) -> None:
        """Train what the objective's estimators learn on up to 64 replicates a step, until `end`, and freeze it."""
        learned = list(elbo.estimators.parameters())
        if learned and elbo not in self._optimisers:
            self._optimisers[elbo] = torch.optim.Adam(learned, lr=LEARN_RATE)
        has_state = bool(learned) or any(True for _ in elbo.estimators.buffers())
        elbo.estimators.train()
        for _ in range(steps if has_state else 0):
            if time.perf_counter() > end:
                break
            self.pair.teach(elbo, learned, LEARN_REPLICATES)
            if learned:
                self._optimisers[elbo].step()
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
