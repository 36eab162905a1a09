"""`WakeSleep`: reweighted wake-sleep with weights formed per data point, for discrete latents as for continuous ones.

    wake, θ:  Σ_k v_k ∇ log p(x, z_k)        wake, φ:  Σ_k v_k ∇ log q(z_k | x),   v_k = w_k / Σ_j w_j
    sleep, φ: ∇ log q(z' | x'),  (z', x') drawn from the model

No gradient passes a draw, so no site needs an estimator.  θ maximises L_K; φ descends KL(p(z | x) ‖ q), not a bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pathscore.elbos.importance import ImportanceELBO
from pathscore.elbos.rows import Draw
from pathscore.elbos.terms import Terms
from pathscore.elbos.weights import WeightedTerms
from pathscore.errors import UsageError
from pathscore.estimators import Estimator, Site
from pathscore.estimators.families import family_name, unwrap
from pathscore.programs.traces import Unconditioned, sample_sites


class Reweighted(Estimator):
    """Draws without a gradient; the objective itself follows Σ_k v_k ∇log q(z_k)."""

    name = "reweighted"
    formula = "Σ_k v_k ∇log q(z_k)"
    reference = "Bornschein & Bengio 2015"
    serves_points = True  # of an autoguide, that follow a draw

    def surrogate(self, site: Site) -> Tensor:
        return torch.zeros_like(site.cost[0])


class WakeSleep(ImportanceELBO):
    """Reweighted wake-sleep; the loss reported is −L_K, which the model's parameters maximise.

    Args:
        num_particles: K, at least 2 (one weight is always 1).
        max_plate_nesting: as `SiteELBO`.
        insomnia: share of the wake phase in φ's gradient, 1 − insomnia that of the sleep phase. A sleep-phase sample
            stands in for the arguments that are the programs' observations, so a sleep phase needs `obs=` to be an
            argument itself.

    Raises:
        UsageError: fewer than 2 particles, an insomnia outside [0, 1], a site that names an estimator, a point mass
            whose place parameters move, and for a sleep phase an observation that is not an argument.

    References:
        Reweighted Wake-Sleep. Bornschein, Bengio, 2015.
        Revisiting Reweighted Wake-Sleep for Models with Stochastic Control Flow. Le et al., 2019.
    """

    def __init__(
        self, *, num_particles: int = 2, max_plate_nesting: float = float("inf"), insomnia: float = 1.0
    ) -> None:
        if num_particles < 2:
            raise UsageError(
                f"--elbo wake-sleep needs --particles 2 or more, got {num_particles}: one weight is always 1"
            )
        if not 0 <= insomnia <= 1:
            raise UsageError(f"insomnia is a share between 0 (sleep) and 1 (wake), got {insomnia}")
        super().__init__(Reweighted(), num_particles=num_particles, max_plate_nesting=max_plate_nesting)
        self.insomnia = insomnia

    def refuse(self, estimator: Estimator, site: str) -> str | None:
        if isinstance(estimator, Reweighted):
            return None
        return f"wake-sleep passes no gradient through a draw, so {estimator.name} has nothing to do: leave it out"

    def beside(self, draws: dict[str, Draw], terms: Terms, scores: Tensor) -> Tensor | float:
        """Nothing more. Raises: UsageError where log q of a given value does not show what the parameters do."""
        for name, draw in draws.items():
            if family_name(draw.fn) == "delta" and _moved_by_parameters(draw.fn):
                raise UsageError(
                    f"--elbo wake-sleep: site '{name}' is a point mass that parameters move, and ∇log q of a given "
                    "value does not train them: use --elbo iwae, or a guide with a density there"
                )
        return 0.0

    def bound(self, terms: Terms, sites: dict[str, Site]) -> tuple[Tensor, Tensor]:
        """L_K, and Σ_k v_k (log p + insomnia · log q) to be differentiated."""
        assert isinstance(terms, WeightedTerms)
        value, _ = super().bound(terms, {})
        K = terms.plan.particles
        log_p = terms.log_weight([t for t in terms.weighing if t.key[0] == "p"])
        log_q = -terms.log_weight([t for t in terms.weighing if t.key[0] == "q"])
        awake = terms.scale * (terms.path_shares * (log_p + self.insomnia * log_q)).sum()
        return value, awake + sum((t.value.sum() / K for t in terms.outside), torch.zeros(()))

    def loss_and_surrogate(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
        loss, surrogate = super().loss_and_surrogate(model, guide, args, kwargs)
        if self.insomnia < 1:
            surrogate = surrogate - (1 - self.insomnia) * asleep_log_q(model, guide, args, kwargs)
        return loss, surrogate


def _moved_by_parameters(fn: Any) -> bool:
    """Whether a gradient reaches a point mass although no draw carries one."""
    point = unwrap(fn)
    return any(isinstance(t, Tensor) and t.requires_grad for t in (point.v, point.log_density))


def asleep_log_q(model: Callable, guide: Callable, args: tuple, kwargs: dict) -> Tensor:
    """log q(z' | x') of one sleep-phase sample (z', x') ~ p per data point, summed, with its graph to the guide."""
    with torch.no_grad():
        asleep = poutine.trace(Unconditioned()(model)).get_trace(*args, **kwargs)
        awake = poutine.trace(poutine.replay(model, trace=asleep)).get_trace(*args, **kwargs)
    drawn = sample_sites(asleep)
    observed = {n: s["value"] for n, s in sample_sites(awake).items() if s["is_observed"]}
    found: set[str] = set()

    def slept(argument: Any) -> Any:
        names = [n for n, value in observed.items() if value is argument]
        found.update(names)
        return drawn[names[0]]["value"] if names else argument

    args, kwargs = tuple(map(slept, args)), {key: slept(value) for key, value in kwargs.items()}
    awake_only = sorted(observed.keys() - found)
    if awake_only:
        raise UsageError(
            f"--elbo wake-sleep: the sleep phase draws '{awake_only[0]}', which is no argument of model and guide "
            "itself: pass the observed tensor as one, or set insomnia to 1"
        )
    log_q = poutine.trace(poutine.replay(guide, trace=asleep)).get_trace(*args, **kwargs).log_prob_sum()
    return torch.as_tensor(log_q)
