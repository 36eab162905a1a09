"""Compiled code at the sizes that people train: a batch of 64 digits, 64-128-16, every objective and estimator.

Faults of a compiler depend on sizes. `inplace_buffers` of TorchInductor gave DiSARM a wrong gradient at these, and at
no others that were tried. (Warnings are errors here: a run that falls back to eager fails its test.)
"""

import pytest
import torch
from compiled_cases import legal_cells, legal_estimators

from guides import AmortizedGuide
from models import VAE
from pathscore.compiling.compiled_elbo import CompiledELBO, EagerWarning
from pathscore.compiling.inductor import OPTIONS
from pathscore.elbos import make_elbo
from pathscore.estimators import ESTIMATORS
from pathscore.svi import SVI

SIZE = 64


def compiled_run(elbo="trace", latent="normal", particles=1, estimator=None, steps=10) -> SVI:
    """Ten steps, of which the graph takes eight and is compared with the eager objective before four."""
    width = 3 if "enum" in (elbo, estimator) else 4 if latent == "categorical" else 16
    sizes = {"data_size": SIZE, "layers": (width,), "hidden": (128,), "latent": latent, "classes": 5}
    svi = SVI(
        VAE(**sizes),
        AmortizedGuide(**sizes),
        "adam",
        CompiledELBO(make_elbo(elbo, estimator, particles)),
        per_datum=True,
    )
    x = (torch.rand(SIZE, SIZE) < 0.3).float()
    for _ in range(steps):
        svi.step(x)
    return svi


def test_disarm_with_as_many_data_as_pixels():
    assert compiled_run(latent="bernoulli", estimator="disarm").compiled.built


@pytest.mark.proof
def test_the_check_finds_what_in_place_buffers_do(monkeypatch):
    """The fault itself, planted again; if it is gone from torch, `OPTIONS` can have them back."""
    monkeypatch.setitem(OPTIONS, "inplace_buffers", True)
    with pytest.warns(EagerWarning, match="a gradient differs"):
        svi = compiled_run(latent="bernoulli", estimator="disarm")
    assert not svi.compiled.built


@pytest.mark.proof
@pytest.mark.parametrize(("elbo", "latent", "particles"), legal_cells())
def test_every_objective(elbo, latent, particles):
    assert compiled_run(elbo, latent, particles).compiled.built


@pytest.mark.proof
@pytest.mark.parametrize(("name", "latent"), legal_estimators())
def test_every_estimator(name, latent):
    particles = ESTIMATORS[name].min_particles
    assert compiled_run(latent=latent, particles=particles, estimator=name).compiled.built
