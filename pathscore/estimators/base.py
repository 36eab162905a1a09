"""The estimator interface: how the gradient passes one sample site.

An estimator sees one site of any Pyro program and never the program.  It says how to draw (`sample`), which coupled
counterfactual values it wants evaluated (`rows`, `branch`), and turns their costs into a `surrogate` whose gradient is
the estimate.  `SiteELBO` runs the program once for all rows of all sites.

Shapes: K particles, R rows, then the site's plates, then its event.  A site's cost is (1 + R, K, *plates): row 0 is
the drawn value, the others the branch values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from pyro.distributions.score_parts import ScoreParts
from torch import Tensor, nn

from pathscore.estimators.families import family_name, linear_log_prob, narrow, sum_right
from pathscore.programs.laws import log_prob, no_inverse


@dataclass
class Site:
    """What an estimator sees of its site in one step.

    Attributes:
        name: the sample site's name.
        full_fn: the distribution over all rows, batch shape (rows, *plates).
        value: the drawn values, (K, *plates, *event).
        noise: what `Estimator.sample` returned beside them, restricted to the K base rows.
        branch: the coupled values, (R, K, *plates, *event), with their graph; None when R = 0.
        cost: log p − log q credited to the site, in nats, (1 + R, K, *plates), without a graph.
        log_q: unscaled score function of the base rows, (K, *plates), with its graph.
        slope: derivative of each branch row's total cost by its value, (R, K, *plates, *event); only where asked for.
        curvature: second derivatives, (R, K, *plates, N, N) for the N variables of an event; only where asked for.
        memo: what the estimator computes once a step, for its own use.
        context: what was known before the draw, (K, *plates, C): upstream values and observations.
    """

    name: str
    full_fn: Any
    value: Tensor
    noise: Any
    branch: Tensor | None
    cost: Tensor
    log_q: Tensor
    slope: Tensor | None = None
    curvature: Tensor | None = None
    make_context: Callable[[], Tensor] | None = field(default=None, repr=False)
    memo: Any = field(default=None, repr=False)

    @cached_property
    def fn(self) -> Any:
        """The distribution of the base rows, batch shape (K, *plates)."""
        fn = self.full_fn
        missing = self.value.ndim - len(fn.event_shape) - len(fn.batch_shape)  # one row needs no row plate
        return narrow(fn.expand((1,) * missing + tuple(fn.batch_shape)) if missing else fn, slice(0, len(self.value)))

    @cached_property
    def context(self) -> Tensor:
        assert self.make_context is not None
        return self.make_context()

    def per_element(self, cost: Tensor) -> Tensor:
        """A cost (…, *plates) made to broadcast against event-shaped tensors."""
        return cost[(...,) + (None,) * len(self.full_fn.event_shape)]

    def over_event(self, t: Tensor) -> Tensor:
        """Sum an event-shaped tensor to (…, *plates)."""
        return sum_right(t, len(self.full_fn.event_shape))


class Estimator(nn.Module):
    """How the gradient passes one sample site.  Subclass, set the attributes, write `surrogate`.

    Attributes:
        name: the word of the command line.
        formula: the estimate of ∇E_q[f], in the notation of the reference.
        reference: paper, authors, year.
        families: names of the legal families (None: every distribution).
        unbiased: whether the mean of the estimate is the exact gradient.
        min_particles: smallest legal K.
        differentiable_cost: whether the model must be differentiable in the value.
        scores: differentiates log q at a fixed value.
        pathwise: the value carries the gradient, and the site's −log q stays in the bound.
        relaxed: values (of some rows) leave the support, or carry a gradient: scored by the linear extension.
        needs_slope: wants `Site.slope`.
        needs_curvature: wants `Site.curvature` too.
        compares_particles: the K costs are baselines of each other (illegal where the K share one cost).
        couples_particles: the K draws are not independent (legal where a bound is their mean, and costs stay apart).
        perturbs_rows: data points see values of their own (legal where the bound is a sum over data points).
        particles: K, set when the step is laid out.
        serves_points: a pattern with it names point masses too, which are left to their own path otherwise.
        one_at_a_time: its rows vary one variable with the others held, so the members of a plate must not share a cost.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    reference: ClassVar[str]
    families: ClassVar[tuple[str, ...] | None] = None
    unbiased: ClassVar[bool] = True
    min_particles: ClassVar[int] = 1
    differentiable_cost: ClassVar[bool] = False
    scores: ClassVar[bool] = True
    pathwise: ClassVar[bool] = False
    relaxed: ClassVar[bool] = False
    needs_slope: ClassVar[bool] = False
    needs_curvature: bool = False
    compares_particles: ClassVar[bool] = False
    couples_particles: bool = False
    perturbs_rows: ClassVar[bool] = False
    particles: int = 1
    one_at_a_time: ClassVar[bool] = False
    serves_points: ClassVar[bool] = False

    @property
    def word(self) -> str:
        """The name with the options that change what it does, as the command line reads them."""
        return self.name

    def refusal(self, fn: Any, particles: int = 1) -> str | None:
        """Why this estimator cannot serve a site with distribution `fn` and K particles; None when it can."""
        if self.families is not None and family_name(fn) not in self.families:
            return f"{self.name} needs a {' or '.join(self.families)} site, not {family_name(fn)}"
        if particles < self.min_particles:
            return f"{self.name} needs --particles {self.min_particles} or more, got {particles}"
        if self.scores and (transforms := no_inverse(fn)):
            return f"{self.name} needs log q of a given value, and {transforms} has no inverse: use pathwise"
        return None

    def setup(self, fn: Any, context: Tensor) -> None:
        """Build what is learned once the site's shapes are known; called before the first step."""

    def rows(self, fn: Any) -> int:
        """Number R of counterfactual evaluations per particle."""
        return 0

    def sample(self, fn: Any) -> tuple[Tensor, Any]:
        """Draw all rows: a value (rows, *plates, *event) and the noise behind it."""
        with torch.no_grad():
            return fn.sample(), None

    def branch(self, fn: Any, value: Tensor, noise: Any) -> Tensor:
        """The R coupled values of the base rows, (R, K, *plates, *event)."""
        raise NotImplementedError

    def score_parts(self, fn: Any, value: Tensor) -> ScoreParts:
        """log q in its three roles: reported, multiplied by the cost, and differentiated as the −log q of the bound."""
        log_q = self.log_prob(fn, value)
        return ScoreParts(log_q, log_q, 0.0)  # type: ignore[arg-type]  # Pyro takes 0.0 for an absent part

    def log_prob(self, fn: Any, value: Tensor) -> Tensor:
        """Log-probability of the site's values under guide or model, (rows, *plates)."""
        return linear_log_prob(fn, value) if self.relaxed else log_prob(fn, value)

    def branch_log_prob(self, fn: Any, value: Tensor) -> Tensor | None:
        """Log-density of this site's own branch rows where it differs from `log_prob`; None where it does not."""
        return None

    def weights(self, site: Site) -> Tensor | None:
        """Weights (1 + R, K, *plates) or (1 + R, 1, …) that average the rows into the bound; None: only row 0 counts.

        Legal only for rows whose weighted mean has the expectation of the bound.
        """
        return None

    def surrogate(self, site: Site) -> Tensor:
        """A tensor (K, *plates) whose gradient is the estimate of this site's part of the bound's gradient."""
        raise NotImplementedError

    def aux_loss(self, site: Site) -> Tensor | None:
        """A scalar whose gradient trains this estimator's own parameters and nothing else."""
        return None

    def observe(self, site: Site) -> None:
        """Update running statistics, after the surrogate has been formed (a baseline never sees its own sample)."""
