"""Whether a compiled graph does what the objective does: `disagreement(graph, …) -> str | None`.

Both run from the same state and the same random stream; losses, gradients, the state that a step writes (baselines,
running averages) and the numbers drawn must agree. State and stream are as before on return.

Tolerances for a dtype of relative spacing ε: ε^0.6 for losses (float32 7e-5, float64 4e-10) and ε^0.4 in norm for each
gradient and each state (1.7e-3, 5e-7). Rounding can turn one bit of a discrete draw, and a gradient with it: only what
differs in three draws out of three disagrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pathscore.machine import streams

DRAWS = 3
FLOOR = 1e-2
"""A gradient smaller than this share of the whole is compared with that share of the whole."""


@dataclass(frozen=True)
class Outcome:
    """What one evaluation leaves: losses, gradients, state written, and the random stream after it."""

    losses: tuple[float, ...]
    gradients: list[Tensor]
    written: list[Tensor]
    stream: dict[str, Tensor]


def disagreement(
    compiled: Callable[[], tuple[tuple[float, ...], list[Tensor]]],
    eager: Callable[[], tuple[tuple[float, ...], list[Tensor]]],
    written: list[Tensor],
    device: torch.device,
) -> str | None:
    """What differs between the two in each of `DRAWS` draws, None when one of them agrees."""
    before, stream = [t.detach().clone() for t in written], streams.read(device)
    start, found = stream, None
    try:
        for _ in range(DRAWS):
            theirs = _evaluate(eager, before, written, start, device)
            found = _difference(_evaluate(compiled, before, written, start, device), theirs)
            if found is None:
                return None
            start = theirs.stream
        return found
    finally:
        _put(before, written)
        streams.write(stream, device)


def _evaluate(
    run: Callable, before: list[Tensor], written: list[Tensor], stream: dict[str, Tensor], device: torch.device
) -> Outcome:
    _put(before, written)
    streams.write(stream, device)
    losses, gradients = run()
    return Outcome(losses, gradients, [t.detach().clone() for t in written], streams.read(device))


def _put(values: Iterable[Tensor], tensors: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)


def _difference(ours: Outcome, theirs: Outcome) -> str | None:
    eps = max((torch.finfo(g.dtype).eps for g in theirs.gradients), default=1e-16)
    for a, b in zip(ours.losses, theirs.losses, strict=True):
        if not math.isfinite(a) and not math.isfinite(b):
            return None  # the step that follows refuses the loss, and says where it went wrong
        if not abs(a - b) <= eps**0.6 * max(1.0, abs(b)):
            return f"the loss is {a:.7g}, and {b:.7g} eagerly"
    if not _close(ours.gradients, theirs.gradients, eps**0.4):
        return "a gradient differs from the eager one"
    if not _close(ours.written, theirs.written, eps**0.4):
        return "the state it leaves (a baseline, a running average) differs from the eager one"
    if any(not torch.equal(ours.stream[name], theirs.stream[name]) for name in theirs.stream):
        return "it draws another amount of random numbers"
    return None


def _close(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> bool:
    norms = [float(t.double().norm()) for t in theirs]
    whole = sum(norm**2 for norm in norms) ** 0.5
    errors = [float((a.double() - b.double()).norm()) for a, b in zip(ours, theirs, strict=True)]
    return all(error <= tolerance * max(norm, FLOOR * whole) for error, norm in zip(errors, norms, strict=True))
