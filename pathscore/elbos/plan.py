"""What is known of a (model, guide) pair before the first step: its sites, their estimators, rows and dependencies.

`make_plan` runs the pair once, inside a forked random state, resolves every latent site's estimator, lays out the
rows — K base particles, then R_s rows a particle for each site s in turn — and, for credit by dependency, finds which
terms of the bound depend on which sites.  A plan holds no batch size: it serves every minibatch.
"""

from __future__ import annotations

import copy
import fnmatch
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from typing import Any

import torch
from pyro.infer.util import is_validation_enabled
from pyro.poutine.trace_struct import Trace
from pyro.util import check_model_guide_match, check_site_shape
from torch import nn

from pathscore.elbos import members
from pathscore.elbos.analytic import analytic
from pathscore.elbos.dependence import Depends, TermKey, cut, dependence
from pathscore.elbos.legality import Refuse, refusal_here, require_apart, require_legal
from pathscore.errors import UsageError
from pathscore.estimators import Auto, Estimator, Gumbel, Pathwise, Score, choose, make_estimator, parse
from pathscore.estimators.families import family_name
from pathscore.programs.matching import mismatch
from pathscore.programs.traces import latent_sites, plates_of, sample_sites, traces
from pathscore.programs.untouched import rehearsal

Spec = dict[str, Estimator]


@dataclass(frozen=True)
class SitePlan:
    """One latent site: its estimator, its rows, and how it was found."""

    name: str
    estimator: Estimator
    rows: int
    family: str
    plates: tuple[str, ...]
    chosen: str  # "named", "auto" or "default"
    known: bool = False  # whether the estimator has served the site before


@dataclass
class Plan:
    """The layout of a step: latent sites in the order the guide draws them.

    depends: the latent sites that each term depends on, where costs are credited by dependency; None: by plate.
    row_depends: the same, wherever there are counterfactual rows: they draw only what depends on their site.
    couplers: site -> later draws that make the members of its plates a cost of each other -> the names of these plates;
        links: the latent sites that each term depends on, where there are any.
    """

    particles: int
    max_plate_nesting: int
    sites: dict[str, SitePlan]
    depends: Depends | None = None
    row_depends: Depends | None = None
    analytic: frozenset[str] = frozenset()
    couplers: dict[str, dict[str, frozenset[str]]] = field(default_factory=dict)
    links: Depends = field(default_factory=dict)
    weight_plates: frozenset[str] | None = None  # names of those that importance weights are formed over, if any are
    slices: dict[str, slice] = field(default_factory=dict)
    obstacle: str | None = None  # why rows are run pass by pass, where they are

    def __post_init__(self) -> None:
        start = self.particles
        for site in self.sites.values():
            if site.rows:
                self.slices[site.name] = slice(start, start := start + site.rows * self.particles)
        self.rows = start
        self.order = {name: i for i, name in enumerate(self.sites)}

    @cached_property
    def watched(self) -> frozenset[str]:
        """Sites without rows of their own that costs are withheld from as long as nothing is seen to depend on them.

        A term that was not met to depend on them may do so later (a branch not yet taken, a switch of the program).
        """
        return frozenset(n for n, s in self.sites.items() if not s.estimator.pathwise and self._withholds(n, s))

    @property
    def coupled(self) -> str:
        """Why rows cannot be run one after another, where a site couples its particles; else empty."""
        names = [name for name, site in self.sites.items() if site.estimator.couples_particles]
        return f"draws= at site '{names[0]}' couples particles in one pass: leave draws= out, or " if names else ""

    def _withholds(self, name: str, site: SitePlan) -> bool:
        later = [other for n, other in self.sites.items() if self.order[n] > self.order[name]]
        coupled = self.couplers.get(name, {})
        if any(set(site.plates) - set(other.plates) and other.name not in coupled for other in later):
            return True
        if self.depends is None or site.rows:
            return False
        return any(
            key[0] != "prior" and name not in of and self.may_cost(name, key) for key, of in self.depends.items()
        )

    def may_cost(self, name: str, key: TermKey) -> bool:
        """Whether a term can depend on a site at all: −log q of what was drawn before it cannot."""
        return key[0] == "p" or self.order.get(key[1], len(self.order)) >= self.order[name]

    def widen(self, seen: Mapping[TermKey, frozenset[str]], guide_trace: Trace) -> None:
        """Charge sites, from this step on, for terms that are seen to depend on them for the first time."""
        held = self.links if self.depends is None else self.depends
        if all(sites <= held.get(key, frozenset()) for key, sites in seen.items()):
            return
        for depends in {id(d): d for d in (held, self.row_depends) if d is not None}.values():
            depends.update({key: sites | depends.get(key, frozenset()) for key, sites in seen.items()})
        self.couplers = members.couplers(guide_trace, lambda: held)
        self.links = held
        del self.watched

    def base_only(self) -> Plan:
        """The same sites without counterfactual rows: for evaluating the bound."""
        sites = {name: replace(s, rows=0) for name, s in self.sites.items()}
        return replace(self, sites=sites, slices={})

    def dependencies(self, name: str) -> frozenset[str]:
        """The earlier sites on which the guide's distribution of a site depends."""
        if self.row_depends is None:
            return frozenset(self.sites)
        return self.row_depends.get(("q", name), frozenset()) - {name}

    def later_dependents(self, name: str) -> list[str]:
        """The sites drawn after a site whose distribution depends on it: what its counterfactual rows redraw."""
        return [n for n in self.sites if self.order[n] > self.order[name] and name in self.dependencies(n)]

    def estimator(self, name: str) -> Estimator:
        try:
            return self.sites[name].estimator
        except KeyError:
            raise UsageError(
                f"sample site '{name}' was not there at the first step: a program whose sites change between steps "
                "needs a stock objective (--elbo trace --estimator default)"
            ) from None


def read_spec(estimators: Any) -> Spec:
    """Patterns → estimators, from a dict, a string of the command line's form, one estimator, or None."""
    if estimators is None:
        return {}
    if isinstance(estimators, str):
        return parse(estimators)
    if isinstance(estimators, dict):
        return {pattern: make_estimator(spec) for pattern, spec in estimators.items()}
    return {"*": make_estimator(estimators)}


def score_relaxations(spec: Spec, kl: str) -> None:
    """Have the soft draws of a spec scored under "relaxed" densities or under the "discrete" distributions."""
    relaxations = [e for e in spec.values() if isinstance(e, Gumbel)]
    if not relaxations:
        raise UsageError(f"--kl {kl} says how gumbel scores its soft draw: add --estimator gumbel, or leave --kl out")
    for estimator in relaxations:
        estimator.kl = kl


def dry_run(model: Callable, guide: Callable, args: tuple, kwargs: dict, max_plate_nesting: float):
    """(model trace, guide trace, max_plate_nesting), checked as Pyro checks them; consumes no random numbers."""
    with rehearsal(model, guide), torch.no_grad():
        model_trace, guide_trace = traces(model, guide, args, kwargs)
        if reason := mismatch(sample_sites(model_trace), sample_sites(guide_trace)):
            raise UsageError(reason)
        if is_validation_enabled():
            check_model_guide_match(model_trace, guide_trace, max_plate_nesting)
        model_trace.compute_log_prob()
        guide_trace.compute_log_prob()
    sites = [s for trace in (model_trace, guide_trace) for s in sample_sites(trace).values()]
    if max_plate_nesting == float("inf"):
        max_plate_nesting = -min([f.dim for s in sites for f in plates_of(s)], default=0)
    if is_validation_enabled():
        for site in sites:
            check_site_shape(site, int(max_plate_nesting))
    return model_trace, guide_trace, int(max_plate_nesting)


def resolve(
    site: dict, spec: Spec, particles: int, found: dict[str, Estimator], refuse: Refuse
) -> tuple[Estimator, str]:
    """The estimator of a guide site and how it was found: the site's own, the closest pattern's, or Pyro's default."""
    name, fn = site["name"], site["fn"]
    if name in found:
        return found[name], "named"
    own, pattern = site["infer"].get("estimator"), closest(spec, name)
    if own is not None:
        estimator = make_estimator(own)
    elif pattern is not None and (pattern == name or family_name(fn) != "delta" or spec[pattern].serves_points):
        estimator = copy.deepcopy(spec[pattern])  # learned state belongs to one site
    else:
        return (Pathwise() if getattr(fn, "has_rsample", False) else Score()), "default"
    if isinstance(estimator, Auto):
        if estimator.seconds is not None:
            raise UsageError(
                f"auto(seconds=…) at site '{name}' is for runs: in Python, recommend(model, guide, …) measures"
            )
        return choose(fn, particles, refuse), "auto"
    return estimator, "named"


def closest(patterns: Iterable[str], name: str) -> str | None:
    """The pattern that a site goes by: its own name, or the longest that matches; None where none does."""
    found = [p for p in patterns if _matches(p, name)]
    return max(found, key=lambda p: (p == name, len(p)), default=None)


def make_plan(
    model: Callable,
    guide: Callable,
    args: tuple,
    kwargs: dict,
    *,
    dry: tuple[Trace, Trace, int],
    spec: Spec,
    found: nn.ModuleDict,
    particles: int,
    credit: str,
    kl: str,
    refuse: Callable[[Estimator, str], str | None] = lambda estimator, site: None,
) -> Plan:
    """Lay out the steps of a pair from its dry run; `found` (site → estimator) keeps learned state between pairs.

    Raises:
        UsageError: an estimator that cannot serve its site, or a pattern that matches no site.
    """
    model_trace, guide_trace, nesting = dry
    latents = latent_sites(guide_trace)
    _check_patterns(spec, latents, [name.replace("/", ".") for name in found], model_trace)
    known = {name: found[key_of(name)] for name in latents if key_of(name) in found}
    sites: dict[str, SitePlan] = {}
    find = cache(lambda: dependence(model, guide, args, kwargs, guide_trace, list(latents)))
    ties = cache(lambda: members.tied(model_trace, guide_trace, lambda: find()[0]))
    cuts = cache(lambda site: cut(model, guide, args, kwargs, guide_trace, site))
    for name, site in latents.items():
        here = partial(refusal_here, refuse, ties, cuts, name)
        # `found` holds only estimators, but a ModuleDict types its members as modules.
        estimator, chosen = resolve(site, spec, particles, known, here)  # type: ignore[arg-type]
        require_legal(estimator, site, sample_sites(model_trace).get(name), particles, here)
        met = name in known
        found[key_of(name)], estimator.particles = estimator, particles
        plates = tuple(sorted(f.name for f in plates_of(site)))
        family, rows = family_name(site["fn"]), estimator.rows(site["fn"])
        sites[name] = SitePlan(name, estimator, rows, family, plates, chosen, met)
    require_apart(sites)
    plan = Plan(particles, nesting, sites)
    if credit == "graph" or kl != "sampled" or plan.slices:
        depends, lost = find()
        plan.analytic = analytic(depends, plan.order, kl, latents, model_trace)
        plan.row_depends = {term: sites_ | lost for term, sites_ in depends.items()}
        plan.depends = plan.row_depends if credit == "graph" else None
        if credit == "graph" and lost:
            _warn_of_lost(lost)
    if not all(site.estimator.pathwise for site in sites.values()):  # others have costs
        plan.couplers = members.couplers(guide_trace, lambda: find()[0])
        plan.links = dict(find()[0]) if len({site.plates for site in sites.values()}) > 1 else {}
    return plan


def _warn_of_lost(lost: Iterable[str]) -> None:
    warnings.warn(
        f"credit by graph: terms depend on {', '.join(sorted(lost))} in a way tensors do not show (.item(), "
        "numpy, Python branches, in-place writes): every later cost counts there, as under --elbo trace",
        stacklevel=3,
    )


def covers(plan: Plan, model: Callable, guide: Callable, args: tuple, kwargs: dict, guide_trace: Trace) -> bool:
    """Whether a plan holds for a call of another kind with the same sites: no term depends on more than it knows."""
    if plan.row_depends is None:
        return True
    depends, lost = dependence(model, guide, args, kwargs, guide_trace, list(plan.sites))
    empty: frozenset[str] = frozenset()
    return all(sites | lost <= plan.row_depends.get(term, empty) for term, sites in depends.items())


def key_of(name: str) -> str:
    """A site's name as a module's key (no dots)."""
    return name.replace(".", "/")


def _check_patterns(spec: Spec, latents: Iterable[str], met: Iterable[str], model_trace: Trace) -> None:
    """Raise UsageError for a pattern that matches no latent site, of this call or of an earlier one.

    A site that is observed in this call may be latent in another one, as a label that is not always given: a warning.
    """
    names = list(latents)
    for pattern in spec:
        if any(_matches(pattern, name) for name in (*names, *met)):
            continue
        observed = [name for name in sample_sites(model_trace) if _matches(pattern, name)]
        if not observed:
            raise UsageError(f"--estimator: no sample site matches '{pattern}': sites are {', '.join(names) or 'none'}")
        warnings.warn(
            f"--estimator: '{pattern}' matches {', '.join(observed)} alone, which is observed in this call: it waits "
            "for a call in which the site is latent",
            stacklevel=2,
        )


def _matches(pattern: str, name: str) -> bool:
    """Whether a pattern names a site. A draw of an autoguide is named by the model's site too, without its suffix."""
    return any(fnmatch.fnmatchcase(word, pattern) for word in (name, name.removesuffix("_unconstrained")))
