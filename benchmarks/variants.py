"""The table `VARIANTS`: name → a function of a `Case` that returns `step(x) -> loss`.

"numpyro" is not in the table, because it runs in a separate process (numpyro_process.py). `EXTRA` is measured only when
it is named; `handwritten-graph` needs a GPU, and is measured there.
"""

from collections.abc import Callable
from unittest.mock import patch

import pyro
import torch
from pyro.infer import Trace_ELBO

from benchmarks.cases import Case
from benchmarks.handwritten import Step, handwritten, handwritten_graph
from guides import AmortizedGuide
from models import VAE
from pathscore.compiling.compiled_elbo import CompiledELBO
from pathscore.compiling.inductor import build
from pathscore.compiling.rewrites import REWRITES
from pathscore.elbos import make_elbo
from pathscore.svi import SVI
from pathscore.svi.optimiser import OptimizerSpec


def handwritten_compiled(case: Case) -> Step:
    """`handwritten` with its loss through `torch.compile`."""
    return handwritten(case, wrap=torch.compile)


def pyro_svi(case: Case) -> Step:
    """Pyro's SVI, Adam and validation settings as in its tutorials, with one particle per evaluation of the case."""
    model, guide = VAE(**case.sizes), AmortizedGuide(**case.sizes)
    particles = {"num_particles": case.evaluations, "vectorize_particles": case.evaluations > 1}
    elbo = Trace_ELBO(max_plate_nesting=1, **particles)
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), elbo)
    store = pyro.get_param_store()
    state = {"params": {}, "constraints": {}}

    def step(x):
        # A separate parameter store, because cases share parameter names. Entering it is a small part of the step.
        with store.scope(state):
            return svi.step(x)

    return step


def eager(case: Case) -> Step:
    """`pathscore.SVI` with the case's estimator."""
    return make_svi(case, lambda elbo: elbo).step


def compiled(case: Case) -> Step:
    """`pathscore.SVI` with `CompiledELBO`."""
    return make_svi(case, CompiledELBO).step


def compiled_plain(case: Case) -> Step:
    """`compiled` without the rewrites of the graph that save time."""

    def plain(capture, inputs):
        with patch.dict(REWRITES, clear=True):
            return build(capture, inputs)

    return make_svi(case, lambda elbo: CompiledELBO(elbo, builder=plain)).step


def make_svi(case: Case, wrap: Callable) -> SVI:
    """`pathscore.SVI` for a case, its objective wrapped."""
    model, guide = VAE(**case.sizes), AmortizedGuide(**case.sizes)
    return SVI(model, guide, OptimizerSpec(lr=1e-3), wrap(make_elbo("trace", case.estimator)), per_datum=True)


VARIANTS: dict[str, Callable[[Case], Step]] = {
    "handwritten": handwritten,
    "handwritten-compiled": handwritten_compiled,
    "pyro-svi": pyro_svi,
    "eager": eager,
    "compiled": compiled,
}

EXTRA: dict[str, Callable[[Case], Step]] = {"compiled-plain": compiled_plain, "handwritten-graph": handwritten_graph}
