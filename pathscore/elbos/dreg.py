"""`DReG`: the importance-weighted bound with doubly reparameterised gradients at its pathwise sites.

The path gradient of a weight has a part that moves z and a part that moves log q_φ(z) at fixed z; the second is a
score, whose noise swamps the guide's gradient as K grows.  Reparameterising it once more turns it into the first.  The
program sees each pathwise value cut off from its history; slopes taken there are scaled and sent up the path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pyro.distributions.util import is_identically_zero
from pyro.infer.util import is_validation_enabled
from torch import Tensor

from pathscore.elbos.importance import ImportanceELBO
from pathscore.elbos.plan import Plan, SitePlan
from pathscore.elbos.rows import Draw, RowSampler
from pathscore.elbos.terms import Terms, sum_to
from pathscore.elbos.weights import WeightedTerms, residual_scale
from pathscore.errors import UsageError
from pathscore.estimators import Site
from pathscore.programs.traces import plates_of

Cut = dict[str, tuple[Tensor, Any]]  # site → the value that entered the program, and the same with its history


def has_path(site: SitePlan) -> bool:
    """Whether a site is a pathwise draw (a point mass is a parameter: its path needs no second look)."""
    return site.estimator.pathwise and site.family != "delta"


def _refuse_partial(site: SitePlan, fn: Any, value: Tensor) -> None:
    if not is_identically_zero(fn.score_parts(value).score_function):
        family = type(fn).__name__
        raise UsageError(
            f"--elbo dreg: the path of site '{site.name}' misses a part ({family} rejects): use --elbo iwae"
        )


class _CutSampler(RowSampler):
    """Hands the program the base values of pathwise sites without their history: `draw.cut`, of `draw.path`."""

    def _draw(self, site: SitePlan, fn: Any) -> Draw:
        draw = super()._draw(site, fn)
        if not has_path(site):
            return draw
        if is_validation_enabled():
            _refuse_partial(site, fn, draw.value)
        K, rows = self.plan.particles, self.plan.rows
        draw.path = draw.value if rows == K else draw.value[:K]
        draw.cut = draw.path.detach().requires_grad_(torch.is_grad_enabled())
        # Counterfactual rows of earlier sites keep their path: slopes of their costs run along it.
        draw.value = draw.cut if rows == K else torch.cat([draw.cut, draw.value[K:]])
        return draw


class DReG(ImportanceELBO):
    """L_K (or Rényi's bound), its pathwise sites differentiated by Σ_k v_k [1 − (1 − α)(1 − v_k)] ∇_z log w_k · ∂z/∂φ.

    v_k = w_k^(1 − α) / Σ_j w_j^(1 − α); for α = 0 the factor is v_k², for K = 1 sticking the landing. Unbiased for
    guides of several layers, where ∇_z follows later layers' paths, and with sites of other estimators among them,
    whose scores are differentiated by z as well. Models' gradients are those of `ImportanceELBO`.

    Args: as `ImportanceELBO`.

    Raises:
        UsageError: at the first step, a guide without a pathwise site, or one whose path is partial (samplers with an
            acceptance step).

    References:
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives. Tucker, Lawson, Gu, Maddison, 2019.
        Generalized Doubly Reparameterized Gradient Estimators. Bauer, Mnih, 2021.
    """

    one_pass_only: ClassVar[str] = "dreg cuts the values of all rows at once: use --elbo iwae, or "

    def prepare(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Plan:
        plan = super().prepare(model, guide, *args, **kwargs)
        if not any(map(has_path, plan.sites.values())):
            raise UsageError(
                f"--elbo dreg reparameterises pathwise sites, and here there is none ({', '.join(plan.sites)}): use "
                "--elbo vimco"
            )
        return plan

    def sampler(self, plan: Plan) -> RowSampler:
        return _CutSampler(plan)

    def bound(self, terms: Terms, sites: dict[str, Site]) -> tuple[Tensor, Tensor]:
        """The bound, and the path of everything but the pathwise sites: theirs goes through `beside`."""
        assert isinstance(terms, WeightedTerms)
        K = terms.plan.particles
        cut = {("q", name) for name, site in terms.plan.sites.items() if has_path(site)}
        cut_log_q = terms.log_weight([t for t in terms.weighing if t.key in cut])
        along = terms.path_shares * (terms.path_log_w - cut_log_q)
        rest = sum((t.value[:K].sum() for t in terms.outside), torch.zeros(())) / K
        value = terms.scale * terms.bounds[:K].sum() / K + rest
        return value.detach(), terms.scale * along[:K].sum() + rest

    def beside(self, draws: dict[str, Draw], terms: Terms, scores: Tensor) -> Tensor:
        """Σ slope · path over the pathwise sites, slopes detached."""
        assert isinstance(terms, WeightedTerms)
        cut = {name: (draw.cut, draw.path) for name, draw in draws.items() if draw.cut is not None}
        K = terms.plan.particles
        share = terms.path_shares[:K]
        of_bound = _slopes_along(terms.scale * (share * terms.path_log_w[:K]).sum() + scores, cut)
        of_log_w = _slopes_along(terms.log_w[:K].sum(), cut)
        of_scores = _slopes_along((share * _log_q(terms)).sum(), cut)
        total = torch.zeros(())
        for name, (_, path) in cut.items():
            change = self.order * share * (1 - share)  # of the share with its own log w
            change = change[(...,) + (None,) * len(terms.sites[name]["fn"].event_shape)]
            of_share = _own_weight(terms, name) * (change * of_log_w[name] + of_scores[name])
            total = total + ((of_bound[name] - terms.scale * of_share) * path).sum()
        return total


def _own_weight(terms: WeightedTerms, name: str) -> Any:
    """What a site's −log q has for a factor in log w: a weight on the KL term, and 0 where it is masked out."""
    site = terms.sites[name]
    scale, mask = residual_scale(site), site["mask"]
    if mask is None or mask is True:
        return scale
    mask = torch.as_tensor(mask)
    if mask.ndim > terms.plan.max_plate_nesting:  # a mask of the distribution has a dimension of rows
        mask = mask[: terms.plan.particles]
    return scale * mask[(...,) + (None,) * len(site["fn"].event_shape)]


def _log_q(terms: WeightedTerms) -> Tensor:
    """Σ log q of the sites drawn by other means than a path: (K, *plates of the weights)."""
    K, total = terms.plan.particles, torch.zeros(())
    for name in terms.drawn:
        total = total + sum_to(terms.scores[name][:K], plates_of(terms.sites[name]), terms.plates)
    return total


def _slopes_along(total: Tensor, cut: Cut) -> dict[str, Tensor]:
    """Derivatives of `total` by the pathwise values, along the paths of later ones but not through parameters."""
    slopes = {}
    for name, (value, path) in reversed(cut.items()):
        found = None
        if total.requires_grad and value.requires_grad:
            (found,) = torch.autograd.grad(total, value, retain_graph=True, allow_unused=True)
        slopes[name] = torch.zeros_like(value) if found is None else found
        if found is not None:
            total = total + (found * path).sum()
    return slopes
