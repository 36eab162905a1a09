"""The ELBO of held-out data during training: `validate(svi, x, seed) -> dict`. It does not change the run.

Draws come from a separate random stream, modules are in evaluation mode, and the weight of the KL term is 1.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
from torch import Tensor

from pathscore.evaluation.bounds import elbo, standard_error
from pathscore.evaluation.weights import Data
from pathscore.svi import SVI


def validate(svi: SVI, x: Tensor | Data, seed: int) -> dict[str, float]:
    """Mean ELBO, its standard error, rate and distortion over the rows of the data, in nats, with one draw per row."""
    with svi.scope(), evaluating(svi), pyro.validation_enabled(False):
        parts = elbo(svi.model, svi.guide, x, seed=seed)
    svi.recorder.forget()
    return {
        "valid_elbo": parts.elbo.mean().item(),
        "valid_elbo_se": standard_error(parts.elbo),
        "valid_rate": parts.rate.mean().item(),
        "valid_distortion": parts.distortion.mean().item(),
    }


@contextmanager
def evaluating(svi: SVI) -> Iterator[None]:
    """Modules are in evaluation mode inside the block, and back in their former mode afterwards."""
    modes = [(part, part.training) for module in svi.modules().values() for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes:
            part.training = mode
