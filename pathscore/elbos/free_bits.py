"""`FreeBitsELBO`: the evidence lower bound whose KL terms are not pressed below a floor of λ nats per data point.

    E_q[log p(x | z)] − Σ_l max(λ, mean_n KL_l,n) · N,   KL_l,n = KL(q(z_l | x_n, …) ‖ p(z_l | …))

The mean is over the minibatch and the particles, as in the paper; a site below the floor keeps its draws free of charge
for that step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pathscore.elbos.plan import Plan
from pathscore.elbos.rows import Draw
from pathscore.elbos.site import SiteELBO
from pathscore.elbos.terms import Term, Terms
from pathscore.errors import UsageError


class FreeBitsELBO(SiteELBO):
    """`SiteELBO` with a floor under each latent site's KL term.

    Args:
        estimators and the others: as `SiteELBO`; `kl` is "auto" here, for a KL in closed form is known without noise.
        free_bits: λ, in nats per data point and latent site; a site's event (a layer) is one group.

    Raises:
        UsageError: a negative λ.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow (appendix C.8). Kingma, Salimans, Jozefowicz,
        Chen, Sutskever, Welling, 2016.
    """

    def __init__(self, estimators: Any = None, *, free_bits: float = 0.0, kl: str = "auto", **options: Any) -> None:
        if not 0 <= free_bits < math.inf:
            raise UsageError(f"--free-bits must be a number of nats of at least 0, got {free_bits}")
        super().__init__(estimators, kl=kl, **options)
        self.free_bits = free_bits

    def _run(
        self, plan: Plan, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[dict[str, Draw], Terms]:
        draws, terms = super()._run(plan, model, guide, args, kwargs)
        charged = {name: self._mean_kl(terms, name) > self.free_bits for name in plan.sites}
        floored = [self._floored(t, terms, charged[t.key[1]]) if t.key[1] in charged else t for t in terms.terms]
        return draws, replace(terms, terms=floored)

    def _mean_kl(self, terms: Terms, name: str) -> Tensor:
        """KL of a site in nats per data point, its mean over the K particles and the minibatch."""
        own = [t.value.detach()[: terms.plan.particles] for t in terms.terms if t.key[1] == name]
        return -(sum(own, torch.zeros(())) / terms.sites[name]["scale"]).mean()

    def _floored(self, term: Term, terms: Terms, charged: Tensor) -> Term:
        """The term where it is charged; else its share of −λ, without a gradient."""
        kind, name = term.key
        level = 0.0 if kind == "q" else -self.free_bits * terms.sites[name]["scale"]  # p and q are one KL
        value = torch.where(charged, term.value, level * torch.ones_like(term.value))
        path = torch.where(charged, term.path, 0.0) if isinstance(term.path, Tensor) else term.path
        return replace(term, value=value, path=path)
