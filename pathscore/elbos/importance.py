"""`ImportanceELBO`: the K-sample importance-weighted bound, and Rényi's, for any mix of sites and estimators.

    ImportanceELBO({"z": "disarm"}, num_particles=5).loss_and_grads(model, guide, x)

Weights are formed per data point before the plate's scale (weights.py), so subsampled plates keep it a bound.  A
particle's cost is L_K less its share of the weights; a counterfactual row's is the same with that row in place of its
particle, whatever the estimator.  K particles, B data points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from pathscore.elbos.averaging import RowWeights
from pathscore.elbos.legality import compares_particles
from pathscore.elbos.plan import Plan, key_of
from pathscore.elbos.rows import Draw
from pathscore.elbos.site import SiteELBO
from pathscore.elbos.terms import Terms, sum_to
from pathscore.elbos.weight_plates import weight_plates, where
from pathscore.elbos.weights import WeightedTerms, weigh
from pathscore.errors import UsageError
from pathscore.estimators import Estimator, Site, StickingTheLanding
from pathscore.programs.traces import plates_of

PLAIN = "use pathwise"
ALONE = "leave draws= out, or use --elbo trace"


class ImportanceELBO(SiteELBO):
    """Σ_n N/B · E_{z_1..z_K ~ q} 1/(1 − α) log 1/K Σ_k w_nk^(1 − α),  w_nk = p(x_n, z_k) / q(z_k | x_n).

    α = 0 is the importance-weighted bound L_K: ELBO ≤ L_K ≤ log p(x), rising with K. Its gradient has two parts: along
    the weights (log p, and pathwise sites with their log q), and for the other sites Σ_k (L_K − v_k) ∇log q(z_k),
    v_k = w_k / Σ_j w_j, which their estimators take over. A weight on the KL term (`kl_weighted`) enters the weights;
    only at weight 1 is it a bound on log p(x).

    Args:
        estimators, num_particles, max_plate_nesting: as `SiteELBO`; by default pathwise where reparameterised, else
            the score function.
        alpha: order of the Rényi bound; 1 would be the ELBO.

    Raises:
        UsageError: at the first step, estimators that compare particles with each other (`rloo`: use `VIMCO`) or leave
            the score of q out (`stl`: use `DReG`); programs whose weights would not be right (`weight_plates`).

    References:
        Importance Weighted Autoencoders. Burda, Grosse, Salakhutdinov, 2016.
        Rényi Divergence Variational Inference. Li, Turner, 2016.
    """

    shared_cost: ClassVar[bool] = True
    remedy: ClassVar[str] = "use --elbo vimco, whose signal compares them soundly"

    def __init__(
        self,
        estimators: Any = None,
        *,
        num_particles: int = 1,
        max_plate_nesting: float = float("inf"),
        alpha: float = 0.0,
    ) -> None:
        if alpha == 1:
            raise UsageError("--alpha 1 is the ELBO: use --elbo trace")
        super().__init__(estimators, num_particles=num_particles, max_plate_nesting=max_plate_nesting)
        self.order = 1.0 - alpha
        self._divided: dict[str, str] = {}  # site → why it takes no estimator that varies one member at a time

    def refuse(self, estimator: Estimator, site: str) -> str | None:
        if isinstance(estimator, StickingTheLanding):
            return "stl is biased under importance weights; --elbo dreg with pathwise sites is what it becomes there"
        if compares_particles(estimator):
            return f"{estimator.name} compares particles' costs, and here each depends on all particles; {self.remedy}"
        if estimator.couples_particles:
            return f"importance weights take independent particles, and those of {estimator.word} are not: {ALONE}"
        if estimator.perturbs_rows:
            return f"an importance weight is that of a draw that rows share; {estimator.name} gives each one: {PLAIN}"
        if site in self._divided and estimator.one_at_a_time:
            return self._divided[site].format(estimator.name)
        return None

    def prepare(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Plan:
        plan = super().prepare(model, guide, *args, **kwargs)
        if plan.weight_plates is None:
            plan.weight_plates = weight_plates(model, guide, args, kwargs, plan)
            if self._divide(plan):  # `auto` chooses again, now that the plates of the weights are known
                self.forget(model, guide)
                return self.prepare(model, guide, *args, **kwargs)
        return plan

    def costs(self, plan: Plan) -> str:
        return f"importance weights formed {where(plan.weight_plates or ())}"

    def bound(self, terms: Terms, sites: dict[str, Site]) -> tuple[Tensor, Tensor]:
        assert isinstance(terms, WeightedTerms)
        weights = RowWeights(terms.plan, sites, terms)
        path = weights.total(terms.plates, terms.scale * terms.bounds)
        path = path + sum(weights.total(t.plates, t.value) for t in terms.outside)
        return path.detach() / terms.plan.particles, path / terms.plan.particles

    def cost(self, terms: Terms, name: str) -> Tensor:
        """L_K − v less the baseline, N/B times, to the site's plates: (rows, *plates)."""
        assert isinstance(terms, WeightedTerms)
        cost = terms.scale * (terms.cost_of(name).detach() - self.baseline(terms))
        cost = sum_to(cost, terms.plates, plates_of(terms.sites[name]))  # a point mass may lie outside the weights
        return cost.expand(len(cost), *terms.scores_shape(name)[1:])

    def baseline(self, terms: WeightedTerms) -> Tensor | float:
        """What the cost of a row is compared with, (rows, *plates): free of that row's particle."""
        return 0.0

    def what_if(self, plan: Plan, terms: Terms, name: str) -> Tensor:
        assert isinstance(terms, WeightedTerms)
        rows, cost = plan.slices[name], terms.cost_of(name)
        held = cost.detach() - self.baseline(terms)
        total = cost[rows].sum()
        for later in self.later(plan, terms, name):  # their scores weigh the cost of this site
            total = total + (terms.scores[later][rows] * held[rows]).sum()
        return terms.scale * total

    def _run(
        self, plan: Plan, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[dict[str, Draw], Terms]:
        draws, terms = super()._run(plan, model, guide, args, kwargs)
        return draws, weigh(terms, self.order)

    def _divide(self, plan: Plan) -> bool:
        """Note the sites of which the weights hold several members; whether `auto` has to choose again.

        Raises: UsageError where an estimator that varies one member at a time was named for such a site.
        """
        assert plan.weight_plates is not None
        again = False
        for site in plan.sites.values():
            deeper = sorted(set(site.plates) - plan.weight_plates)
            if not deeper or not site.estimator.one_at_a_time or site.name in self._divided:
                continue
            reason = (
                f"{{}} varies one member of plate '{deeper[0]}' at a time, and the importance weights are formed "
                f"{where(plan.weight_plates)}: use disarm or score there"
            )
            if site.chosen != "auto":
                raise UsageError(f"--estimator: site '{site.name}': {reason.format(site.estimator.name)}")
            self._divided[site.name], again = reason, True
        for site in plan.sites.values() if again else ():
            if site.chosen == "auto":
                del self.estimators[key_of(site.name)]
        return again
