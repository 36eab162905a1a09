"""The ELBO of held-out data in the middle of training: `validate(svi, x, seed) -> dict`, moving nothing of the run.

Draws come from a stream of their own, modules are in evaluation mode, and the KL term carries no weight.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
from torch import Tensor

from pathscore.evaluation.bounds import elbo, standard_error
from pathscore.evaluation.weights import Data
from pathscore.svi import SVI


def validate(svi: SVI, x: Tensor | Data, seed: int) -> dict[str, float]:
    """Mean ELBO and its standard error, rate and distortion over the rows of the data, from one draw each, in nats."""
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
    """Modules in evaluation mode inside, each back in its own mode afterwards."""
    modes = [(part, part.training) for module in svi.modules().values() for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes:
            part.training = mode
