"""`explain`: what a step will do, as a table a person can read; for plans, and for Pyro's own objectives."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from pyro import poutine
from pyro.infer import ELBO, TraceEnum_ELBO

from pathscore.elbos.explanation import Explanation
from pathscore.elbos.plan import Plan
from pathscore.estimators.families import family_name
from pathscore.programs.laws import is_straight_through
from pathscore.programs.traces import latent_sites
from pathscore.programs.untouched import rehearsal

HEADER = ("site", "distribution", "plates", "estimator", "unbiased", "KL", "rows", "a row redraws")


def explain(plan: Plan, costs: str) -> Explanation:
    """One line per latent site (distribution, plates, estimator, rows), the model evaluations of a step, `costs`."""
    lines = []
    for site in plan.sites.values():
        note = "" if site.chosen == "named" else f" ({site.chosen})"
        lines.append(
            (
                site.name,
                site.family,
                ", ".join(site.plates) or "—",
                site.estimator.word + note,
                "yes" if site.estimator.unbiased else "no",
                "analytic" if site.name in plan.analytic else "sampled",
                f"{site.rows * plan.particles}",
                ", ".join(plan.later_dependents(site.name)) or "nothing" if site.rows else "—",
            )
        )
    particles = f"{plan.particles} particle{'s' * (plan.particles > 1)}"
    rows = f"{particles} + {plan.rows - plan.particles} counterfactual rows = {plan.rows} model evaluations per step"
    passes = "in one pass" if plan.obstacle is None else "pass by pass"
    return Explanation(HEADER, lines, f"{rows}, {passes}; {costs}")


@cache
def explained(cls: type[ELBO]) -> type[ELBO]:
    """A class of Pyro's own objective, untouched but for `explain` and its `repr`."""
    own = {"explain": explain_stock, "__repr__": repr_stock, "__module__": cls.__module__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), own)


def repr_stock(self: ELBO) -> str:
    """Class and K."""
    return f"{pyros_name(self)}(Pyro's own gradient, K = {self.num_particles})"


def pyros_name(elbo: ELBO) -> str:
    """The name of Pyro's class that an objective is, or checks and mends."""
    return next(cls.__name__ for cls in type(elbo).__mro__ if cls.__module__.startswith("pyro."))


def explain_stock(self: ELBO, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Explanation:
    """A table of the guide's sites and what Pyro does there: distribution, plates, gradient, whether it is unbiased."""
    with rehearsal(model, guide), torch.no_grad():
        sites = latent_sites(poutine.trace(guide).get_trace(*args, **kwargs))
    lines = [_stock_line(self, name, site) for name, site in sites.items()]
    evaluations = f"{self.num_particles} particle{'s' * (self.num_particles > 1)}; Pyro's own {pyros_name(self)}"
    return Explanation(HEADER[:5], lines, evaluations)


def _stock_line(elbo: ELBO, name: str, site: Any) -> tuple[str, ...]:
    fn = site["fn"]
    plates = ", ".join(sorted(f.name for f in site["cond_indep_stack"] if f.vectorized)) or "—"
    if is_straight_through(fn):
        return name, family_name(fn), plates, "straight-through", "no"
    if isinstance(elbo, TraceEnum_ELBO) and fn.has_enumerate_support:
        return name, family_name(fn), plates, "summed out", "yes"
    return name, family_name(fn), plates, "pathwise" if fn.has_rsample else "score", "yes"
