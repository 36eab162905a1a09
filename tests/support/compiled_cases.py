"""Small runs that the tests of compiled steps share: the same run eagerly and compiled, step by step.

`interpreted` is a builder that runs a captured graph operation by operation: what is captured is tested for every
objective and estimator without the seconds that TorchInductor takes to build each.
"""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from guides import AmortizedGuide
from models import LATENTS, VAE
from pathscore.compiling.compiled_elbo import CompiledELBO
from pathscore.compiling.inductor import build
from pathscore.elbos import ELBOS, make_elbo
from pathscore.estimators import ESTIMATORS
from pathscore.svi import SVI
from pathscore.svi.optimiser import OptimizerSpec

WIDTH, ROWS = 12, 8
SPEC = OptimizerSpec(lr=0.01, clip_norm=5.0, schedule="cosine", total_steps=200)


def interpreted(capture: Any, inputs: list[Tensor]) -> Callable:
    """The captured graph, run as it is."""
    return capture.graph


def data(rows: int = ROWS, seed: int = 5) -> Tensor:
    """Binary x (B, X)."""
    u = torch.rand(rows, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (u < 0.4).to(torch.get_default_dtype())


def make(
    elbo: str = "trace",
    estimators: Any = None,
    *,
    latent: str = "normal",
    layers: tuple[int, ...] = (4,),
    particles: int = 1,
    builder: Callable | None = None,
    spec: Any = SPEC,
    **options: Any,
) -> SVI:
    """A run from seed 0; compiled where there is a builder."""
    torch.manual_seed(0)
    sizes = {"data_size": WIDTH, "layers": layers, "hidden": (6,), "latent": latent, "classes": 3}
    objective = make_elbo(elbo, estimators, particles, **options)
    wrapped = objective if builder is None else CompiledELBO(objective, builder=builder)
    return SVI(VAE(**sizes), AmortizedGuide(**sizes), spec, wrapped, per_datum=True)


def losses(svi: SVI, batches: Iterable[Tensor]) -> list[float]:
    """The loss of a step on each batch, from the same random stream for every run."""
    torch.manual_seed(1)
    found = [svi.step(batch) for batch in batches]
    return [loss[0] if isinstance(loss, tuple) else loss for loss in found]


def pair(steps: int, builder: Callable = build, **how: Any) -> tuple[SVI, SVI, list[float], list[float]]:
    """The same run eagerly and compiled: both, and the losses of both. Every fifth batch is smaller."""
    batches = [data(3 if number % 5 == 4 else ROWS, seed=number) for number in range(steps)]
    eager, compiled = make(**how), make(**how, builder=builder)
    return eager, compiled, losses(eager, batches), losses(compiled, batches)


def legal_cells() -> list:
    """Every objective with each family of latents it is right for."""
    cells = []
    for name, entry in ELBOS.items():
        for latent, family in LATENTS.items():
            particles = max(entry.particles, entry.min_particles)
            if entry.refusal([family(4, 3)], guide="amortised", particles=particles, batch_size=ROWS) is None:
                cells.append(pytest.param(name, latent, particles, id=f"{name}-{latent}"))
    return cells


ONE_VARIABLE = ("unordered", "sum-and-sample")
"""They serve one categorical variable, not the layers here: tests/estimators compiles them."""


def legal_estimators() -> list:
    """Every estimator with a family that it serves."""
    return [
        pytest.param(name, latent, id=f"{name}-{latent}")
        for name, kind in ESTIMATORS.items()
        for latent, family in (("normal", "normal"), ("bernoulli", "bernoulli"), ("categorical", "onehot"))
        if (kind.families is None or family in kind.families) and name not in ONE_VARIABLE and not kind.perturbs_rows
        if not (latent != "normal" and kind.pathwise and name in ("pathwise", "stl"))
    ]
