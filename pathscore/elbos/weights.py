"""The terms of the bound seen through importance weights: log w, and every row's bound, share and cost.

`weigh(terms, order) -> WeightedTerms`.  Weights are formed per element of the plates that all latent sites share, from
terms without those plates' scale N/B, which multiplies the bound afterwards.  Tensors are (rows, *plates), K base rows
first; a counterfactual row stands in for its particle while the K − 1 others stay.

∇E[L] = E[Σ_k (L − v_k) ∇log q(z_k)] + rest, v_k = w_k/Σw: the second half of what the score is weighed with comes from
the log q inside the weights.  Left in the path it would be noise that no estimator sees; as a part of the cost it is
differenced, summed out or compared with the rest (DiSARM with K = 5 on a small net: variance 0.24 → 0.006).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from pyro.distributions.util import is_identically_zero
from torch import Tensor

from pathscore.elbos.terms import Term, Terms, sum_to
from pathscore.programs.traces import ROW_PLATE


@dataclass
class WeightedTerms(Terms):
    """Terms with the importance weights that they make; `order` is 1 − α of a Rényi bound, 1 for L_K."""

    order: float = 1.0

    @cached_property
    def plates(self) -> frozenset:
        """The plates over whose elements weights are formed, at the sizes of this pass."""
        assert self.plan.weight_plates is not None
        return frozenset(f for t in self.terms for f in t.plates if f.name in self.plan.weight_plates)

    @property
    def scale(self) -> float:
        """N/B of those plates."""
        return math.prod(full_share(frame) for frame in self.plates)

    @cached_property
    def weighing(self) -> list[Term]:
        """The terms that are part of the weights: all in those plates."""
        return [t for t in self.terms if self.plates <= t.plates]

    @cached_property
    def outside(self) -> list[Term]:
        """The terms that no latent site moves and that lie outside those plates: they are added to the bound."""
        return [t for t in self.terms if not self.plates <= t.plates]

    def log_weight(self, terms: list[Term]) -> Tensor:
        """The part that some terms have in log w, with its graph: (rows, *plates)."""
        shape = (self.plan.rows, *[1] * self.plan.max_plate_nesting)
        parts = [sum_to(t.value, t.plates, self.plates) for t in terms]
        # On the program's device; of the default type, so that class indices among the terms do not decide about it.
        start = torch.zeros(shape, device=self.terms[0].value.device)
        return sum(parts, start) / self.scale

    @cached_property
    def log_w(self) -> Tensor:
        """log w = log p(x, z) − log q(z | x) of every row, in nats."""
        return self.log_weight(self.weighing)

    @cached_property
    def path_log_w(self) -> Tensor:
        """log w, in which −log q of the sites in `folded` has no gradient, nor have rows of negligible weight."""
        held = {("q", name) for name in self.folded}
        terms = [replace(t, value=t.value.detach()) if t.key in held else t for t in self.weighing]
        return _NegligibleCut.apply(self.log_weight(terms) if held else self.log_w)

    @property
    def drawn(self) -> list[str]:
        """The sites whose estimators take over the score: neither pathwise nor straight-through."""
        sites = self.plan.sites.values()
        return [s.name for s in sites if not (s.estimator.pathwise or is_identically_zero(self.scores[s.name]))]

    @cached_property
    def folded(self) -> dict[str, float]:
        """Those of them whose log q in the weights is a part of their cost, with its weight (1, or the KL weight).

        Where only a part of a site's elements is in the weights (a mask), that log q stays in the path.
        """
        found = {}
        for name in self.drawn:
            mask, scale = self.sites[name]["mask"], residual_scale(self.sites[name])
            if (mask is None or mask is True) and not isinstance(scale, Tensor):
                found[name] = scale
        return found

    def powers(self, log_w: Tensor) -> Tensor:
        """order · log w of the base rows, (K, *plates)."""
        return self.order * log_w[: self.plan.particles]

    def log_sums(self, log_w: Tensor) -> Tensor:
        """log Σ_k w_k^order: base rows share theirs, a counterfactual row has its own."""
        K, powers = self.plan.particles, self.powers(log_w)
        base = powers.logsumexp(0, keepdim=True).expand_as(powers)
        if self.plan.rows == K:
            return base
        own = (self.order * log_w[K:]).unflatten(0, (-1, K))
        if K > 1:  # one particle has no others: the second derivative of log(0 + w) would be NaN
            own = torch.logaddexp(others(powers), own)
        return torch.cat([base, own.flatten(0, 1)])

    def bound_of(self, log_sum: Tensor) -> Tensor:
        """The bound that log Σ_k w_k^order makes, per element of the plates."""
        return (log_sum - math.log(self.plan.particles)) / self.order

    @cached_property
    def bounds(self) -> Tensor:
        """The K-sample bound L of every row, for the path: (rows, *plates)."""
        return self.bound_of(self.log_sums(self.path_log_w))

    @cached_property
    def shares(self) -> Tensor:
        """v = w^order / Σ_j w_j^order of every row: (rows, *plates)."""
        return (self.order * self.log_w - self.log_sums(self.log_w)).exp()

    @cached_property
    def path_shares(self) -> Tensor:
        """The same without a graph and without what is negligible: what paths are weighed with."""
        return without_negligible(self.shares.detach())

    @cached_property
    def _totals(self) -> Tensor:
        """L of every row, for slopes: with the graph of all terms."""
        return self.bounds if not self.folded else self.bound_of(self.log_sums(self.log_w))

    def cost_of(self, name: str) -> Tensor:
        """L − v of every row, what a site's score is weighed with, in nats: (rows, *plates)."""
        weight = self.folded.get(name, 0.0)
        return self._totals - weight * self.shares if weight else self._totals


def weigh(terms: Terms, order: float) -> WeightedTerms:
    """The same terms with their weights."""
    return WeightedTerms(**{f.name: getattr(terms, f.name) for f in fields(Terms)}, order=order)


def without_negligible(shares: Tensor) -> Tensor:
    """Shares of the weights, along the first axis, with 0 for those below ε² of the largest (ε the rounding unit).

    They add nothing that a sum could hold, but e^−90 and its products are subnormal numbers, on which a processor's
    matrix product takes up to thirty times as long. NaN stays NaN.
    """
    size = shares.abs()
    least = torch.finfo(shares.dtype).eps ** 2 * size.amax(0, keepdim=True)
    return torch.where(size < least, torch.zeros_like(shares), shares)


class _NegligibleCut(torch.autograd.Function):
    """log w as it is; on the way back, its gradient without entries that are negligible beside the others."""

    @staticmethod
    def forward(ctx: Any, log_w: Tensor) -> Tensor:
        return log_w.view_as(log_w)

    @staticmethod
    # torch declares *gradients; `forward` has one result, so there is one gradient.
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return without_negligible(gradient)


def others(logs: Tensor) -> Tensor:
    """log Σ_{j≠k} exp(logs_j) for every k along the first axis; −inf where there are no others."""
    return leave_one_out(logs, torch.logcumsumexp, torch.logaddexp, -math.inf)


def leave_one_out(values: Tensor, scan: Callable, join: Callable, empty: float) -> Tensor:
    """Every entry's reduction of all the other entries, along the first axis, in linear time.

    From running reductions of both ends: subtracting an entry from the whole would cancel where one dominates.
    """
    start = torch.full_like(values[:1], empty)
    before = torch.cat([start, scan(values, 0)[:-1]])
    after = torch.cat([start, scan(values.flip(0), 0)[:-1]]).flip(0)
    return join(before, after)


def full_share(frame) -> float:
    """N/B of a plate: its size over that of its subsample."""
    return 1.0 if frame.full_size is None else frame.full_size / frame.size


def residual_scale(site: Any) -> Any:
    """A site's scale without the N/B of its plates: a weight on the KL term, say."""
    return site["scale"] / math.prod(full_share(f) for f in site["cond_indep_stack"] if f.name != ROW_PLATE)


def is_one(scale: Any) -> bool:
    """Whether a scale, a number or a tensor, is 1."""
    return bool((abs(scale - 1.0) < 1e-6).all()) if isinstance(scale, Tensor) else abs(scale - 1.0) < 1e-6
