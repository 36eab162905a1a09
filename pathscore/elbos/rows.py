"""The handler that draws every row of every latent site in one pass of the guide.

Rows are K base particles, then for each site s its R_s × K counterfactual rows.  In the rows of s, sites drawn earlier
copy their base value, s takes the estimator's coupled values, and later sites are drawn afresh if they depend on s,
else they keep their base value (keeping.py).  The handler sits outside the row plate, so `fn` arrives expanded to
(rows, *plates), and it asks the estimator, never `has_rsample`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.utils._pytree import tree_map_only

from pathscore.elbos.keeping import choose_kept, same_law
from pathscore.elbos.plan import Plan, SitePlan
from pathscore.errors import UsageError
from pathscore.estimators.families import family_name, narrow


@dataclass
class Draw:
    """What was drawn at one site: its rows, and what its estimator needs again in the surrogate.

    value is (rows, *plates, *event); branch (R, K, *plates, *event) has its graph; leaf is the copy of the branch that
    entered the program, by which slopes are taken.  cut is the copy without history in which base values entered the
    program, where the objective asks for that, and path those values with their history.
    """

    fn: Any
    value: Tensor
    noise: Any = None
    base_fn: Any = None
    branch: Tensor | None = None
    leaf: Tensor | None = None
    path: Tensor | None = None
    cut: Tensor | None = None


class RowSampler(Messenger):
    """Draws the latent sites of a guide as `plan` lays them out; `draws` holds what was drawn."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.draws: dict[str, Draw] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["done"] or msg["value"] is not None or isinstance(msg["fn"], _Subsample):
            return
        site = self.plan.sites.get(msg["name"])
        if site is None:
            self.plan.estimator(msg["name"])  # raises, naming the site
        assert site is not None
        draw = self.draws[site.name] = self._draw(site, msg["fn"])
        msg["value"], msg["done"] = draw.value, True

    def _draw(self, site: SitePlan, fn: Any) -> Draw:
        # A point mass follows its parameter in every row: a copied value may differ from it in the last bit.
        if self.plan.rows == self.plan.particles or family_name(fn) == "delta":
            return Draw(fn, *site.estimator.sample(fn))
        if len(fn.batch_shape) != self.plan.max_plate_nesting + 1 or fn.batch_shape[0] != self.plan.rows:
            shape = tuple(fn.batch_shape + fn.event_shape)
            raise UsageError(f"site '{site.name}' does not broadcast over a leading row dimension: shape {shape}")
        base = slice(0, self.plan.particles)
        drawn = self._drawn(site, fn)
        value, noise = site.estimator.sample(drawn)
        draw = Draw(fn, value, tree_map_only(Tensor, lambda t: t[base], noise))
        draw.base_fn = drawn if drawn.batch_shape[0] == self.plan.particles else None
        pieces = [value[base]]
        for name, rows in self.plan.slices.items():
            if name == site.name:
                pieces.append(self._branch(site, draw, value[base]))
            elif self.plan.order[name] < self.plan.order[site.name]:
                pieces.append(self._later(site, fn, value, name, rows))
            else:
                pieces.append(_repeat(value[base], self.plan.sites[name].rows))
        draw.value = torch.cat(pieces)
        return draw

    def _later(self, site: SitePlan, fn: Any, value: Tensor, name: str, rows: slice) -> Tensor:
        """The values in the rows of an earlier site `name`: fresh draws where its law differs, else the base draws."""
        if name in self.plan.dependencies(site.name):
            return value[rows]
        base = slice(0, self.plan.particles)
        repeated = _repeat(value[base], self.plan.sites[name].rows)
        return choose_kept(same_law(fn, base, rows), repeated, value[rows], fn.event_dim)

    def _drawn(self, site: SitePlan, fn: Any) -> Any:
        """`fn` on the rows that are drawn at the site: the base rows and those of sites before it."""
        end = self.plan.slices[site.name].start if site.rows else self.plan.rows
        return narrow(fn, slice(0, end)) if end < self.plan.rows else fn

    def _branch(self, site: SitePlan, draw: Draw, base: Tensor) -> Tensor:
        if draw.base_fn is None:
            draw.base_fn = narrow(draw.fn, slice(0, self.plan.particles))
        draw.branch = site.estimator.branch(draw.base_fn, base, draw.noise)
        if is_validation_enabled() and draw.branch.shape != (site.rows, *base.shape):
            raise ValueError(f"{site.estimator.name}.branch returned {tuple(draw.branch.shape)}, expected R × K × …")
        draw.leaf = draw.branch.detach()
        if site.estimator.needs_slope and torch.is_grad_enabled():
            draw.leaf = draw.leaf.requires_grad_()
        return draw.leaf.flatten(0, 1)


def _repeat(base: Tensor, times: int) -> Tensor:
    return base.expand(times, *base.shape).flatten(0, 1)
