"""Averaging counterfactual rows into the bound, where they are draws from q (DiSARM) or an exact sum (enum).

Every site whose estimator offers `weights` proposes a weighted mean over the base row and its own rows; the bound is
the mean of the proposals.  A term outside some of the site's plates can only follow weights that are the same for all
data; otherwise it is read off the base rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pathscore.elbos.plan import Plan
from pathscore.elbos.terms import Terms
from pathscore.estimators.base import Site
from pathscore.programs.traces import plates_of


class RowWeights:
    """Sums over the rows of a pass; without proposals the K base rows count and the others do not."""

    def __init__(self, plan: Plan, sites: dict[str, Site], terms: Terms) -> None:
        self.plan = plan
        self.proposals: dict[str, Tensor] = {}
        for name, site in sites.items():
            weights = plan.estimator(name).weights(site)
            if weights is not None:
                self.proposals[name] = weights
        self.plates = {name: plates_of(terms.sites[name]) for name in self.proposals}
        self._by_plates: dict[frozenset, Tensor] = {}

    def total(self, plates: frozenset, rows: Tensor) -> Tensor:
        """Σ over K particles and all plates of the weighted mean of `rows`, a tensor (rows, *plates)."""
        if not self.proposals:
            return (rows[: self.plan.particles] if rows.shape[0] > self.plan.particles else rows).sum()
        if plates not in self._by_plates:
            self._by_plates[plates] = self._weights(plates)
        return (self._by_plates[plates] * rows).sum()

    def _weights(self, plates: frozenset) -> Tensor:
        base, own = [], {}
        for name, weights in self.proposals.items():
            uniform = weights.numel() == weights.shape[0]
            if uniform or self.plates[name] <= plates:
                base.append(weights[0])
                own[name] = weights[1:]
            else:
                base.append(torch.ones_like(weights[:1, :1, ...].flatten()[0]))
        return self._stacked(sum(base, torch.zeros_like(base[0])), own) / len(self.proposals)

    def _stacked(self, base: Tensor, own: dict[str, Tensor]) -> Tensor:
        """Weights of the base rows and of each site's own rows as one (rows, *plates) tensor."""
        K, dims = self.plan.particles, self.plan.max_plate_nesting
        base = base[(None,) * (dims + 1 - base.ndim)]
        pieces = [base.expand(K, *base.shape[1:])]
        for name, rows in self.plan.slices.items():
            weights = own.get(name)
            if weights is None:
                pieces.append(torch.zeros_like(base[:1]).expand(rows.stop - rows.start, *base.shape[1:]))
            else:
                pieces.append(weights.expand(len(weights), K, *weights.shape[2:]).flatten(0, 1))
        shape = torch.broadcast_shapes(*(p.shape[1:] for p in pieces))
        return torch.cat([p.expand(len(p), *shape) for p in pieces])
