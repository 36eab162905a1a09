"""Pyro's own objectives as entries of the table `ELBOS`: `STOCK[i].make(num_particles=K, max_plate_nesting=P) -> ELBO`.

`max_plate_nesting` is always passed: left to guess it, Pyro runs the program once more and moves the random stream.
K particles are one vectorised plate in front of the program's own where the program can (particles.py). Where Pyro is
silently wrong the entry says so, or a class of our own takes the place of Pyro's (stock_credit.py, enumerated.py,
mean_field.py, tail_adaptive.py).
"""

from functools import partial
from typing import Any

from pyro.infer import (
    ELBO,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
)

from pathscore.elbos.entry import Objective
from pathscore.elbos.enumerated import EnumELBO
from pathscore.elbos.explain import explained
from pathscore.elbos.free_bits import FreeBitsELBO
from pathscore.elbos.mean_field import MeanFieldELBO
from pathscore.elbos.particles import adapting
from pathscore.elbos.site import SiteELBO
from pathscore.elbos.stock_credit import GraphCreditELBO, PlateCreditELBO
from pathscore.elbos.tail_adaptive import TailAdaptiveELBO


def _stock(cls: type[ELBO], num_particles: int, max_plate_nesting: int, **options: Any) -> ELBO:
    return explained(adapting(cls))(
        num_particles=num_particles,
        max_plate_nesting=max_plate_nesting,
        vectorize_particles=num_particles > 1,
        **options,
    )


def _entry(name: str, kind: type[ELBO], doc: str, ours: type[ELBO] | None = None, **rules: Any) -> Objective:
    return Objective(name=name, doc=doc, kind=kind, make=partial(_stock, ours or kind), **rules)


def _elbo(credit: str, *, estimators: Any = None, kl: str = "sampled", free_bits: float = 0.0, **sizes: Any) -> ELBO:
    """Pyro's class, or ours where an estimator, a KL term in closed form or free bits call for it."""
    if free_bits:
        return FreeBitsELBO(estimators, free_bits=free_bits, kl=kl, credit=credit, **sizes)
    if estimators is None and kl == "sampled":
        return _stock(PlateCreditELBO if credit == "plate" else GraphCreditELBO, **sizes)
    return SiteELBO(estimators, kl=kl, credit=credit, **sizes)


def _elbo_entry(name: str, kind: type[ELBO], doc: str, credit: str) -> Objective:
    make = partial(_elbo, credit)
    return Objective(name=name, doc=doc, kind=kind, make=make, credit=credit, options=("kl", "free_bits"))


PATH_ONLY = "Pyro takes this gradient along the path alone, and a discrete site has none"

STOCK: tuple[Objective, ...] = (
    _elbo_entry("trace", Trace_ELBO, "ELBO, Rao–Blackwellised by plate", "plate"),
    _elbo_entry("tracegraph", TraceGraph_ELBO, "ELBO, Rao–Blackwellised by dependency", "graph"),
    _entry(
        "meanfield",
        TraceMeanField_ELBO,
        "ELBO with the KL in closed form where there is one",
        MeanFieldELBO,
        reparameterised=PATH_ONLY,
        mean_field="the closed-form KL is biased when a layer of the guide depends on another",
    ),
    _entry(
        "enum",
        TraceEnum_ELBO,
        "ELBO with discrete latents summed out",
        EnumELBO,
        enumerable="no discrete latent to sum out",
    ),
    _entry(
        "renyi",
        RenyiELBO,
        "Rényi bound of order --alpha; 0 is the importance-weighted bound",
        reparameterised="Pyro's RenyiELBO gives a discrete latent's guide a gradient of exactly 0 at alpha 0: use vr, "
        "iwae or vimco",
        unscaled="Pyro's RenyiELBO is no bound when log-probabilities are rescaled: use vr or iwae",
        options=("alpha",),
        particles=5,  # with one it is the ELBO, whatever its order
    ),
    _entry(
        "rws",
        ReweightedWakeSleep,
        "reweighted wake-sleep",
        joint="Pyro weighs the whole minibatch as one data point (wake-sleep weighs each)",
        unscaled="its importance weights are those of the unscaled densities",
        min_particles=2,
    ),
    _entry(
        "tail-adaptive",
        TraceTailAdaptive_ELBO,
        "tail-adaptive f-divergence: particles weighted by the rank of p/q",
        TailAdaptiveELBO,
        reparameterised=PATH_ONLY,
        unscaled="its ranks are those of the unscaled densities",
        stock_fault="it takes the sorting permutation for the ranks and weighs a minibatch as one data point",
        min_particles=2,
    ),
)
