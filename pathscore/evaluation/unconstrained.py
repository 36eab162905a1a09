"""The continuous latent sites of a program as one flat, unconstrained state, with its two log-densities.

`LatentSpace(model, start, data, chains)`: `draw() -> u`, `logs(u) -> (log q, log p)`, `gap(u)`. C chains, B data
points, D unconstrained numbers per data point. `start` is the program whose distribution the annealing starts from.
"""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint

from pathscore.errors import UsageError
from pathscore.evaluation.weights import Data, Program, data_plate, sum_per_datum
from pathscore.exact.rows import GiveValues, plates, run_rows, site_terms, trial

LARGEST = 1e6  # an unconstrained coordinate beyond this is a trajectory that has diverged


class _Site(NamedTuple):
    """One latent site: batch shape (C, …, B, …) in the row plate; `free` is the shape of an unconstrained event."""

    name: str
    transform: torch.distributions.Transform
    support: Constraint
    batch: tuple[int, ...]
    free: torch.Size


class LatentSpace:
    """The latent sites of one batch. Raises UsageError for discrete sites and for plates within the data plate."""

    def __init__(self, model: Program, start: Program, data: Data, chains: int):
        self.programs = (model, start)
        self.data, self.chains, self.points = data, chains, len(data[0])
        sites, self.depth = trial(model, start, data, {})
        self.sites = [self._plan(name, site["fn"], site) for name, site in sites]

    def _plan(self, name: str, fn, site) -> "_Site":
        self._check(name, site)
        transform = biject_to(fn.support)
        batch = (self.chains, *(1,) * (self.depth - len(fn.batch_shape)), *fn.batch_shape)
        free = transform.inverse_shape(fn.batch_shape + fn.event_shape)[len(fn.batch_shape) :]
        return _Site(name, transform, fn.support, batch, free)

    def _check(self, name: str, site) -> None:
        if site["fn"].support.is_discrete:
            raise UsageError(
                f"site {name!r} is discrete: annealed importance sampling needs continuous latents; use "
                "importance_bound or exact_log_likelihood"
            )
        data_plate(name, plates(site), self.points)
        if site["fn"].batch_shape.numel() != self.points:
            raise UsageError(
                f"site {name!r} lies in a plate within the data plate: make it an event dimension "
                "(.to_event) for annealed importance sampling"
            )

    def draw(self) -> torch.Tensor:
        """A state from the start program, (C, B, D)."""
        nodes: Any = self._run(nullcontext())[0].nodes
        parts = []
        for site in self.sites:
            free: Any = site.transform.inv(nodes[site.name]["value"])
            parts.append(free.reshape(self.chains, self.points, -1))
        return torch.cat(parts, -1)

    def logs(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log q and log p(x, z) of the unconstrained state with log-Jacobian, (C, B) each; −∞ outside the support."""
        with torch.no_grad():
            outside = ~self._inside(u)
        # Rows outside the support are evaluated at the origin, where no program fails, and then set to −∞.
        values, log_jacobian = self._constrain(torch.where(outside[..., None], 0.0, u))
        traces = self._run(GiveValues(values))
        log_q, log_p = (sum_per_datum(site_terms(t, (self.chains,)), log_jacobian) for t in traces)
        return log_q.masked_fill(outside, -torch.inf), log_p.masked_fill(outside, -torch.inf)

    def gap(self, u: torch.Tensor) -> torch.Tensor:
        """log p(x, z) − log q, (C, B)."""
        log_q, log_p = self.logs(u)
        return log_p - log_q

    def _run(self, placed):
        model, start = self.programs
        return run_rows(model, start, self.data, {}, placed, self.chains, self.depth)

    def _constrain(self, u: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        values, log_jacobian = {}, torch.zeros_like(u[..., 0])
        for site, free in zip(self.sites, u.split([s.free.numel() for s in self.sites], -1), strict=True):
            free = free.reshape(*site.batch, *site.free)
            values[site.name] = site.transform(free)
            jacobian = site.transform.log_abs_det_jacobian(free, values[site.name])
            log_jacobian = log_jacobian + jacobian.reshape(self.chains, self.points, -1).sum(-1)
        return values, log_jacobian

    def _inside(self, u: torch.Tensor) -> torch.Tensor:
        """Whether the state is finite and its values lie in the supports, (C, B)."""
        inside = (u.abs() < LARGEST).all(-1)
        for site, value in zip(self.sites, self._constrain(u)[0].values(), strict=True):
            valid = site.support.check(value) & torch.isfinite(value).flatten(len(site.batch)).all(-1)
            inside = inside & valid.reshape(self.chains, self.points)
        return inside
