"""`SiteELBO`: the evidence lower bound with an estimator for every sample site.

    SiteELBO({"z1": DiSARM(), "z2": RLOO()}, num_particles=4).loss_and_grads(model, guide, x)

One pass of guide and model serves K base particles and all counterfactual rows (rows.py); the terms log p − log q are
summed to each site's plates (terms.py); every site's estimator turns its cost into a surrogate.  Credit "plate" gives a
site every term, credit "graph" only those that depend on it.  What its rows have in common costs a site nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pyro import poutine
from pyro.infer.elbo import ELBO, ELBOModule
from pyro.poutine.trace_struct import Trace
from pyro.util import warn_if_nan
from torch import Tensor, nn

from pathscore.elbos.averaging import RowWeights
from pathscore.elbos.context import make_context
from pathscore.elbos.derivatives import derivatives
from pathscore.elbos.explain import explain
from pathscore.elbos.learned import Learned
from pathscore.elbos.passes import pass_by_pass
from pathscore.elbos.plan import Plan, covers, dry_run, key_of, make_plan, read_spec, score_relaxations
from pathscore.elbos.rows import Draw, RowSampler
from pathscore.elbos.structures import Plans
from pathscore.elbos.terms import Term, Terms, collect
from pathscore.elbos.weight_rows import require_rows
from pathscore.errors import UsageError, unknown
from pathscore.estimators import Estimator, Site
from pathscore.programs.broadcasting import REMEDY, obstacle, warn_of_passes
from pathscore.programs.marks import Watch, capturing
from pathscore.programs.traces import PlainLaws, RowPlate, latent_sites, traces
from pathscore.programs.untouched import rehearsal

CREDITS = ("plate", "graph")
KLS = ("sampled", "analytic", "auto", "relaxed", "discrete")


class SiteELBO(ELBO):
    """E_q[log p(x, z) − log q(z)], each latent site differentiated by its own estimator.

    Args:
        estimators: patterns → estimators (`{"z1": DiSARM(), "z*": "rloo", "*": "auto"}`), the command line's string,
            one estimator for every site, or None: pathwise where reparameterised, else score function, as Pyro does.
            A site's `infer={"estimator": …}` overrides it.
        num_particles: K.
        max_plate_nesting: number of plate dimensions of the program; found by a dry run if not given.
        credit: "plate" (as `Trace_ELBO`) or "graph" (as `TraceGraph_ELBO`). A site with counterfactual rows is not
            charged for terms that do not depend on it under either: each step sees that they do not move. Under
            "graph", each step follows the values of the other sites through the programs, so a term that comes to
            depend on one (a branch not taken before, a switch of the program) is a cost of it from that step on.
        kl: "sampled", "analytic" (−KL(q ‖ p) in closed form at every site), "auto" (where that is legal), "relaxed"
            (`gumbel` scores its soft draw under Concrete densities) or "discrete" (under the discrete distributions,
            extended linearly: its default).
        vectorize_particles: whether one pass of the programs serves all particles and counterfactual rows (True: refuse
            programs that are not written for it; False: a pass for each). None: where the program can, with a warning
            where it cannot.

    Attributes:
        estimators: `Learned`, site → estimator, filled when the program is first seen (`prepare`).
        one_pass_only: why rows cannot be run one after another, with another objective; empty where they can.
        shared_cost: whether the K particles share one cost, instead of having one each that is averaged.

    Raises:
        UsageError: an estimator that cannot serve its site, with the legal list.

    References:
        Gradient Estimation Using Stochastic Computation Graphs. Schulman, Heess, Weber, Abbeel, 2015.
        Automated Variational Inference in Probabilistic Programming. Wingate, Weber, 2013.
    """

    shared_cost: ClassVar[bool] = False
    one_pass_only: ClassVar[str] = ""

    def __init__(
        self,
        estimators: Any = None,
        *,
        num_particles: int = 1,
        max_plate_nesting: float = float("inf"),
        credit: str = "plate",
        kl: str = "sampled",
        vectorize_particles: bool | None = None,
    ) -> None:
        if num_particles < 1:
            raise UsageError(f"--particles must be at least 1, got {num_particles}")
        if credit not in CREDITS:
            raise UsageError(f"credit must be plate or graph, got '{credit}'")
        if kl not in KLS:
            raise unknown("--kl", kl, KLS)
        # Pyro types it as int, but accepts math.inf too.
        super().__init__(num_particles=num_particles, max_plate_nesting=max_plate_nesting)  # type: ignore[arg-type]
        self.spec = read_spec(estimators)
        if kl in ("relaxed", "discrete"):
            score_relaxations(self.spec, kl)
        self.credit, self.kl = credit, kl if kl in ("analytic", "auto") else "sampled"
        self.one_pass, self._told = vectorize_particles, False
        self.estimators = Learned()
        self._plans = Plans()

    def __repr__(self) -> str:
        """Class, estimators by pattern, and K."""
        names = ", ".join(f"{pattern}={estimator.name}" for pattern, estimator in self.spec.items())
        return f"{type(self).__name__}({names or 'default'}, K = {self.num_particles})"

    # Pyro declares *args and **kwargs; here the two arguments are named.
    def __call__(self, model: nn.Module, guide: nn.Module) -> ELBOModule:  # type: ignore[override]
        """The bound as a module: its parameters are those of model, guide and estimators."""
        module = super().__call__(model, guide)
        module.estimators = self.estimators
        return module

    def prepare(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Plan:
        """Resolve estimators, rows and dependencies, once for each structure of a call; consumes no random numbers."""
        plan = self._plans.find(model, guide, args, kwargs)
        if plan is not None:
            return plan
        dry = dry_run(model, guide, args, kwargs, self.max_plate_nesting)
        plan = self._plans.like(model, guide, dry[:2])
        if plan is None or not covers(plan, model, guide, args, kwargs, dry[1]):
            plan = make_plan(
                model,
                guide,
                args,
                kwargs,
                dry=dry,
                spec=self.spec,
                found=self.estimators,
                particles=self.num_particles,
                credit=self.credit,
                kl=self.kl,
                refuse=self.refuse,
            )
            with rehearsal(model, guide), torch.no_grad():
                self._setup(plan, dry[0], dry[1])
                if any(site.estimator.perturbs_rows for site in plan.sites.values()):
                    require_rows(plan, model, guide, args, kwargs, self.sampler)
            plan.obstacle = self._obstacle(plan, model, guide, args, kwargs)
        self._plans.keep(model, guide, args, kwargs, dry[:2], plan)
        return plan

    def _obstacle(self, plan: Plan, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> str | None:
        """Why the rows of a step are run pass by pass; None where one pass serves them all."""
        if plan.rows == 1:
            return None
        perturbed = [name for name, site in plan.sites.items() if site.estimator.perturbs_rows]
        if perturbed and not plan.coupled:
            return f"site '{perturbed[0]}' perturbs the rows of each draw"
        slow = self.one_pass is False
        if slow and not plan.coupled:
            return "vectorize_particles=False"
        found = obstacle(model, guide, args, kwargs, plan.max_plate_nesting)
        reason = "vectorize_particles=False" if slow else found
        only = self.one_pass_only or plan.coupled
        if reason is not None and only:
            raise UsageError(f"{reason}, and {only}{REMEDY}")
        if reason is not None and self.one_pass:
            raise UsageError(f"{reason}: {REMEDY}, or leave vectorize_particles out")
        if reason is not None and not self._told:
            warn_of_passes(reason)
            self._told = True
        return reason

    def forget(self, model: Callable, guide: Callable) -> None:
        """Lay out the steps of a pair anew when it is next seen."""
        self._plans.forget(model, guide)

    def refuse(self, estimator: Estimator, site: str) -> str | None:
        """Why this objective cannot use an estimator at a site; None when it can."""
        return None

    def explain(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> str:
        """A table of the guide's sites: distribution, plates, estimator, rows and model evaluations per step."""
        plan = self.prepare(model, guide, *args, **kwargs)
        met = len(self._plans.of(model, guide))
        others = f"\none of {met} structures of a call that were met" if met > 1 else ""
        return explain(plan, self.costs(plan) + others)

    def costs(self, plan: Plan) -> str:
        """How costs are credited to sites, in words."""
        if self.credit == "graph" or not plan.slices:
            return f"costs Rao–Blackwellised by {'dependency' if self.credit == 'graph' else 'plate'}"
        return "costs Rao–Blackwellised by plate, without what is the same in all rows of a site"

    @torch.no_grad()
    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """−ELBO in nats from the K base particles alone."""
        plan = self.prepare(model, guide, *args, **kwargs).base_only()
        _, terms = self._run(plan, model, guide, args, kwargs)
        return self._checked(-self.bound(terms, {})[0])

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """−ELBO in nats; adds the gradient estimate to the parameters' `.grad`."""
        loss, surrogate = self.loss_and_surrogate(model, guide, args, kwargs)
        if surrogate.requires_grad:
            surrogate.backward(retain_graph=self.retain_graph)
        return self._checked(loss)

    def differentiable_loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """−ELBO as a tensor whose gradient is the estimate."""
        loss, surrogate = self.loss_and_surrogate(model, guide, args, kwargs)
        return loss.detach() + (surrogate - surrogate.detach())

    def loss_and_surrogate(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
        """−ELBO (a tensor without a graph) and the scalar whose backward gives the estimate."""
        plan = self.prepare(model, guide, *args, **kwargs)
        draws, terms = self._run(plan, model, guide, args, kwargs)
        sites = self._sites(plan, draws, terms)
        bound, path = self.bound(terms, sites)
        scores, aux = self._estimates(plan, sites)
        return -bound.detach(), aux - (path + scores + self.beside(draws, terms, scores))

    def _estimates(self, plan: Plan, sites: dict[str, Site]) -> tuple[Tensor, Tensor]:
        """The sum of the estimators' surrogates, and of the losses of their own parameters."""
        scores = aux = torch.zeros(())
        for name, site in sites.items():
            estimator = plan.estimator(name)
            scores = scores + estimator.surrogate(site).sum() / (1 if self.shared_cost else plan.particles)
            if estimator.training:  # eval() freezes what is learned, and running averages
                own = estimator.aux_loss(site)
                aux = aux if own is None else aux + own
                estimator.observe(site)
        return scores, aux

    def beside(self, draws: dict[str, Draw], terms: Terms, scores: Tensor) -> Tensor | float:
        """What else an objective differentiates, beside the path and the estimators' `scores`."""
        return 0.0

    def bound(self, terms: Terms, sites: dict[str, Site]) -> tuple[Tensor, Tensor]:
        """The reported bound and the part of it that is differentiated through values and parameters."""
        weights = RowWeights(terms.plan, sites, terms)
        value = sum(weights.total(t.plates, t.value.detach()) for t in terms.terms)
        path = sum(weights.total(t.plates, t.path) for t in terms.terms if isinstance(t.path, Tensor))
        # The type of `sum` includes the int 0, for no terms; here there is at least one tensor.
        return value / terms.plan.particles, path / terms.plan.particles  # type: ignore[return-value]

    def cost(self, terms: Terms, name: str) -> Tensor:
        """The cost credited to site `name`, (rows, *plates)."""
        return terms.cost(name)

    def what_if(self, plan: Plan, terms: Terms, name: str) -> Tensor:
        """The sum of a site's counterfactual costs, with its graph to their values.

        The derivative of a cost through a value drawn afresh downstream is that draw's score times its own cost.
        """
        rows = plan.slices[name]
        total = sum((term.value[rows].sum() for term in terms.terms), torch.zeros(()))
        for later in self.later(plan, terms, name):
            total = total + (terms.scores[later][rows] * terms.cost_in_rows(later, rows)).sum()
        return total

    @staticmethod
    def later(plan: Plan, terms: Terms, name: str) -> list[str]:
        """The sites drawn after a site whose values carry no gradient upstream, but a score."""
        order, scores = plan.order, terms.scores
        return [n for n in scores if n in order and order[n] > order[name] and isinstance(scores[n], Tensor)]

    def sampler(self, plan: Plan) -> RowSampler:
        """The handler that draws the latent sites of a pass."""
        return RowSampler(plan)

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> tuple[Trace, Trace]:
        return traces(model, guide, args, kwargs)

    def _run(
        self, plan: Plan, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[dict[str, Draw], Terms]:
        watch = Watch(plan.watched if torch.is_grad_enabled() and not capturing() else ())
        if watch.names:
            model, guide = watch.model(model), watch.guide(guide)
        if plan.obstacle is not None:
            return pass_by_pass(plan, model, guide, args, kwargs, watch)

        def rowed(fn: Callable) -> Callable:
            rows = RowPlate(plan.rows, dim=-plan.max_plate_nesting - 1)
            return PlainLaws()(fn if plan.rows == 1 else rows(fn))

        with self.sampler(plan) as sampler:
            guide_trace = poutine.trace(rowed(guide)).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(rowed(model), trace=guide_trace)).get_trace(*args, **kwargs)
        plan.widen(watch.seen, guide_trace)
        return sampler.draws, collect(plan, model_trace, guide_trace)

    def _sites(self, plan: Plan, draws: dict[str, Draw], terms: Terms) -> dict[str, Site]:
        slopes = self._slopes(plan, draws, terms)
        sites = {}
        for name, draw in draws.items():
            K, rows = plan.particles, plan.slices.get(name)
            value, cost, score = draw.value, self.cost(terms, name), terms.scores[name]
            value = value[(None,) * (plan.max_plate_nesting + 1 - value.ndim + len(draw.fn.event_shape))]
            if rows is not None:
                own = cost[rows].unflatten(0, (plan.sites[name].rows, K))
                cost = torch.cat([cost[None, :K], own])
            else:
                cost = cost[None, :K]
            score = score[:K] if isinstance(score, Tensor) else score
            site = Site(name, draw.fn, value[:K], draw.noise, draw.branch, cost, score, *slopes.get(name, (None, None)))
            if draw.base_fn is not None:
                site.fn = draw.base_fn
            site.make_context = lambda n=name: make_context(plan, terms, draws, n)
            sites[name] = site
        return sites

    def _slopes(self, plan: Plan, draws: dict[str, Draw], terms: Terms) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Derivatives of the counterfactual rows' costs by their values, and second derivatives where asked for."""
        leaves = {n: d.leaf for n, d in draws.items() if d.leaf is not None and d.leaf.requires_grad}
        if not leaves:
            return {}
        total = sum((self.what_if(plan, terms, name) for name in leaves), torch.zeros(()))
        curved = {name for name in leaves if plan.estimator(name).needs_curvature}
        return derivatives(total, leaves, {name: len(draws[name].fn.event_shape) for name in curved})

    def _setup(self, plan: Plan, model_trace: Trace, guide_trace: Trace) -> None:
        """Build what the estimators learn, once the shapes of their inputs are known."""
        single = Plan(1, plan.max_plate_nesting, plan.base_only().sites)
        draws = {n: Draw(s["fn"], s["value"]) for n, s in latent_sites(guide_trace).items()}
        terms = collect(single, model_trace, guide_trace)
        for name, site in plan.sites.items():
            context = make_context(single, terms, draws, name)
            if not site.known:  # what it has learned in calls of another structure stays
                site.estimator.setup(draws[name].fn, context)
                self.estimators[key_of(name)] = site.estimator.to(context)
        self.estimators.hand_over()

    @staticmethod
    def _checked(loss: Tensor) -> float:
        value = loss.item()  # not float(): a trace keeps a number taken this way in its graph
        warn_if_nan(value, "loss")  # type: ignore[arg-type]  # it takes a float too
        return value


__all__ = ["CREDITS", "KLS", "SiteELBO", "Term"]
