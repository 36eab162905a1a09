"""The terms of the bound seen through importance weights: log w, what the other particles weigh, and bounds of rows.

`weigh(terms, order) -> WeightedTerms`.  Weights are formed per element of the plates that all latent sites share, from
terms without those plates' scale N/B, which multiplies the bound afterwards.  Tensors are (rows, *plates), K base rows
first; a what-if row stands in for its particle while the K − 1 others stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from pathscore.elbos.terms import Term, Terms, sum_to


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
        return sum(parts, torch.zeros(shape)) / self.scale

    @cached_property
    def log_w(self) -> Tensor:
        """log w = log p(x, z) − log q(z | x) of every row, in nats."""
        return self.log_weight(self.weighing)

    @property
    def powers(self) -> Tensor:
        """order · log w of the base rows, (K, *plates)."""
        return self.order * self.log_w[: self.plan.particles]

    def normalised(self) -> Tensor:
        """w_k^order / Σ_j w_j^order, without a graph: (K, *plates)."""
        return self.powers.detach().softmax(0)

    def bound_of(self, log_sum: Tensor) -> Tensor:
        """The bound that log Σ_k w_k^order makes, per element of the plates."""
        return (log_sum - math.log(self.plan.particles)) / self.order

    @cached_property
    def bounds(self) -> Tensor:
        """The K-sample bound: base rows share theirs, a what-if row has the one in which it replaces its particle."""
        K, powers = self.plan.particles, self.powers
        base = powers.logsumexp(0, keepdim=True).expand_as(powers)
        if self.plan.rows == K:
            return self.bound_of(base)
        own = (self.order * self.log_w[K:]).unflatten(0, (-1, K))
        return self.bound_of(torch.cat([base, torch.logaddexp(others(powers), own).flatten(0, 1)]))


def weigh(terms: Terms, order: float) -> WeightedTerms:
    """The same terms with their weights."""
    return WeightedTerms(**{f.name: getattr(terms, f.name) for f in fields(Terms)}, order=order)


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
