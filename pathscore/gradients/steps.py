"""Training steps as they are: the gradient by all parameters of model and guide, one step at a time, with its time.

`Everything(model, guide, args)` is the pair with all of its parameters; `block(lab, objective, …) -> Block` takes a few
steps of an objective without moving a parameter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pathscore.errors import UsageError
from pathscore.gradients.moments import ROUNDING
from pathscore.gradients.racing import Block
from pathscore.gradients.replicates import Passes
from pathscore.machine.streams import beside
from pathscore.programs.untouched import rehearsal

STEPS = 4
"""Steps of a block: their gradients have three degrees of freedom for a variance."""


class Everything(Passes):
    """The pair and the parameters that its programs register and train; replicates are passes."""

    def __init__(self, model: Callable, guide: Callable, args: tuple, kwargs: dict | None = None) -> None:
        super().__init__(model, guide, args, kwargs)
        self.parameters: dict[str, Tensor] = {}
        with rehearsal(model, guide), torch.no_grad():
            traced = poutine.trace(self.guide).get_trace(*args, **self.kwargs)
            replayed = poutine.trace(poutine.replay(self.model, trace=traced)).get_trace(*args, **self.kwargs)
        for trace in (traced, replayed):
            self.parameters.update(trained_in(trace))
        if not self.parameters:
            raise UsageError("model and guide register no parameters: call pyro.module or pyro.param inside them")

    def leaf_tensors(self) -> list[Tensor]:
        return list(self.parameters.values())

    def groups(self) -> dict[tuple[str, str], int]:
        return {("parameters", name.replace("$$$", ".")): p.numel() for name, p in self.parameters.items()}


def trained_in(trace: Any) -> dict[str, Tensor]:
    """The parameters of a trace that have gradients, unconstrained."""
    values = {name: site["value"] for name, site in trace.nodes.items() if site.get("type") == "param"}
    leaves = {n: value.unconstrained() if hasattr(value, "unconstrained") else value for n, value in values.items()}
    return {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}


def block(lab: Any, elbo: Any, *words: Any) -> Block:
    """`STEPS` steps of an objective in the random stream of `words`.

    Forward and backward pass as in training: what the estimators learn gets its gradient too, and nothing is moved.
    A variance below rounding, as that of a sum over all states, counts as rounding. elbo: may be a `CompiledELBO`.
    """
    found = gradients(lab, elbo, STEPS, *words)
    flat = torch.stack([gradient for gradient, _ in found])
    mean = flat.mean(0)
    least = (ROUNDING.get(lab.pair.leaf_tensors()[0].dtype, 1e-2) * mean.norm().item()) ** 2
    squares = (flat - mean).square().sum(1) * STEPS / (STEPS - 1)
    fastest = min(seconds for _, seconds in found)  # other work of the machine only adds to it
    return Block(tuple(squares.clamp(min=max(least, 1e-300)).tolist()), 1e3 * fastest)


def gradients(lab: Any, elbo: Any, count: int, *words: Any) -> list[tuple[Tensor, float]]:
    """The gradient (P,) and the seconds of some steps, in the random stream of `words`."""
    leaves = lab.pair.leaf_tensors()
    elbo.estimators.train()
    kept = _gradients_kept([*leaves, *elbo.estimators.parameters()])
    with beside(lab.device, *words), pyro.validation_enabled(False), kept:
        return [_step(lab, elbo, leaves) for _ in range(count)]


def _step(lab: Any, elbo: Any, leaves: list[Tensor]) -> tuple[Tensor, float]:
    """The gradient (P,) of one step, and its seconds."""
    for leaf in (*leaves, *elbo.estimators.parameters()):
        leaf.grad = None
    _wait(lab.device)
    start = time.perf_counter()
    elbo.loss_and_grads(lab.pair.model, lab.pair.guide, *lab.pair.args, **lab.pair.kwargs)
    _wait(lab.device)
    seconds = time.perf_counter() - start
    flat = [(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad).flatten() for leaf in leaves]
    return torch.cat(flat).double().cpu(), seconds


@contextmanager
def _gradients_kept(leaves: list[Tensor]) -> Iterator[None]:
    """Put back the gradients that tensors hold now."""
    kept = [leaf.grad for leaf in leaves]
    try:
        yield
    finally:
        for leaf, gradient in zip(leaves, kept, strict=True):
            leaf.grad = gradient


def _wait(device: torch.device) -> None:
    """Until an accelerator has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
