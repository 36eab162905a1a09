"""A weight on the KL term: `kl_weighted(program, weight)` scales the latent sites of a model or a guide.

With both programs wrapped, the objective becomes E_q[log p(x | z) + β (log p(z) − log q(z | x))]. The weight is a
number or a `KLWeight`, whose value training moves from step to step. Scales apply to costs alone, never to the score
∇ log q, as Pyro's own subsampling scales do.

References: β-VAE, Higgins et al., 2017. Generating sentences from a continuous space (warm-up), Bowman et al., 2016.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample

from pathscore.errors import UsageError


class KLWeight:
    """β after a linear warm-up: `final` · min(1, (step + 1) / warmup_steps).

    Raises: UsageError for a negative weight or warm-up.
    """

    def __init__(self, final: float = 1.0, warmup_steps: int = 0):
        if not 0 <= final < float("inf"):
            raise UsageError(f"--kl-weight must be a number of at least 0, got {final}")
        if warmup_steps < 0:
            raise UsageError(f"the KL warm-up must last at least 0 steps, got {warmup_steps}")
        self.final = final
        self.warmup_steps = warmup_steps
        self.tensor = torch.zeros((), dtype=torch.float64)
        """The value where a program's scales are computed: a compiled graph holds it, and sees it move."""
        self.value = self.at(0)

    @property
    def value(self) -> float:
        """β of the coming step."""
        return self.tensor.item()

    @value.setter
    def value(self, value: float) -> None:
        self.tensor.fill_(value)

    def at(self, step: int) -> float:
        """β at a step."""
        return self.final * (min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0)

    def advance(self, step: int) -> None:
        """Set the value for the step to come."""
        self.value = self.at(step)

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """β = 1 inside: the bound itself, for evaluation."""
        weighted, self.value = self.value, 1.0
        try:
            yield
        finally:
            self.value = weighted


class _KLWeightMessenger(Messenger):
    def __init__(self, weight: KLWeight):
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg):
            msg["scale"] = msg["scale"] * self.weight.tensor


def kl_weighted(program: Callable, weight: "KLWeight | float") -> Callable:
    """`program` with its latent sites' log-probabilities scaled by `weight`; wrap the model and the guide.

    Raises: UsageError for a negative weight.
    """
    return _KLWeightMessenger(weight if isinstance(weight, KLWeight) else KLWeight(weight))(program)
