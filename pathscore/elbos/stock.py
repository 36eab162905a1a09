"""Pyro's own objectives as entries of the table `ELBOS`: `STOCK[i].make(num_particles=K, max_plate_nesting=P) -> ELBO`.

`max_plate_nesting` is always passed: left to guess it, Pyro runs the program once more and moves the random stream.
K particles are one vectorised plate in front of the program's own. Where Pyro is silently wrong the entry says so.
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
    config_enumerate,
)

from pathscore.elbos.entry import Objective


class EnumELBO(TraceEnum_ELBO):
    """`TraceEnum_ELBO` that sums out every site that can be enumerated, without marks in the program.

    −ELBO = Σ_z q(z | x) [log q(z | x) − log p(x, z)], exact over discrete sites, Monte Carlo over the others.
    """

    def _get_traces(self, model: Any, guide: Any, args: Any, kwargs: Any):
        return super()._get_traces(model, config_enumerate(guide), args, kwargs)


class TailAdaptiveELBO(TraceTailAdaptive_ELBO):
    """`TraceTailAdaptive_ELBO` that reports −ELBO of its draws as the loss, where Pyro reports infinity.

    The gradient is Pyro's: particles weighted by the rank of p / q.

    References: Variational inference with tail-adaptive f-divergence, Wang, Liu & Liu, 2018.
    """

    loss = Trace_ELBO.loss

    def _differentiable_loss_particle(self, model_trace: Any, guide_trace: Any):
        _, surrogate = super()._differentiable_loss_particle(model_trace, guide_trace)
        return (guide_trace.log_prob_sum() - model_trace.log_prob_sum()).item(), surrogate


def _stock(kind: type[ELBO], num_particles: int, max_plate_nesting: int, **options: Any) -> ELBO:
    return kind(
        num_particles=num_particles,
        max_plate_nesting=max_plate_nesting,
        vectorize_particles=num_particles > 1,
        **options,
    )


def _entry(name: str, kind: type[ELBO], doc: str, **rules: Any) -> Objective:
    return Objective(name=name, doc=doc, kind=kind, make=partial(_stock, kind), **rules)


JOINT = "Pyro weighs the whole minibatch as one datum"
PATH_ONLY = "Pyro takes this gradient along the path alone, and a discrete site has none"

STOCK: tuple[Objective, ...] = (
    _entry("trace", Trace_ELBO, "ELBO, costs credited by plate", credit="plate"),
    _entry("tracegraph", TraceGraph_ELBO, "ELBO, costs credited by dependency", credit="graph"),
    _entry(
        "meanfield",
        TraceMeanField_ELBO,
        "ELBO with the KL in closed form where there is one",
        reparameterised=PATH_ONLY,
        mean_field="the closed-form KL is biased when a layer of the guide depends on another",
    ),
    _entry("enum", EnumELBO, "ELBO with discrete latents summed out", enumerable="no discrete latent to sum out"),
    _entry(
        "renyi",
        RenyiELBO,
        "Rényi bound of order --alpha; 0 is the importance-weighted bound",
        reparameterised="Pyro's RenyiELBO gives a discrete latent's guide a gradient of exactly 0 at alpha 0",
        unscaled="Pyro's RenyiELBO is no bound when log-probabilities are rescaled",
        options=("alpha",),
    ),
    _entry(
        "rws",
        ReweightedWakeSleep,
        "reweighted wake-sleep",
        joint=JOINT,
        unscaled="its importance weights are those of the unscaled densities",
        min_particles=2,
        options=("insomnia",),
    ),
    _entry(
        "tail-adaptive",
        TailAdaptiveELBO,
        "tail-adaptive f-divergence: particles weighted by the rank of p/q",
        reparameterised=PATH_ONLY,
        joint=JOINT,
        unscaled="its ranks are those of the unscaled densities",
        min_particles=2,
    ),
)
