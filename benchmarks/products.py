"""A lower bound on the time of a step: its matrix products alone, `products(case) -> step`.

It computes every product of the forward and backward pass, in the layout of backpropagation, into memory that is
already allocated. The rest of a variant's time is element-wise work, the optimiser, memory and Python.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.cases import Case

Layer = tuple[int, int, int, bool]
"""Rows, inputs, outputs, and whether the gradient of the inputs is needed."""


def layers(case: Case) -> list[Layer]:
    """The affine maps of a step."""
    encoder = [size for size in (case.data_size, case.hidden, case.raw) if size is not None]
    decoder = [size for size in (case.latents, case.hidden, case.data_size) if size is not None]
    pathwise = case.latent == "normal"
    found = []
    for place, (inputs, outputs) in enumerate(itertools.pairwise(encoder)):
        found.append((case.batch, inputs, outputs, place > 0))
    for place, (inputs, outputs) in enumerate(itertools.pairwise(decoder)):
        found.append((case.batch * case.evaluations, inputs, outputs, place > 0 or pathwise))
    return found


def flops(case: Case) -> int:
    """Floating-point operations of the products of a step."""
    return sum(2 * rows * inputs * outputs * (2 + passes_on) for rows, inputs, outputs, passes_on in layers(case))


def products(case: Case) -> Callable[[Tensor], float]:
    """A step that does nothing but the matrix products."""
    calls = [call for layer in layers(case) for call in _calls(*layer)]

    def step(x: Tensor) -> float:
        for left, right, out in calls:
            torch.mm(left, right, out=out)
        return 0.0

    return step


def _calls(rows: int, inputs: int, outputs: int, passes_on: bool) -> list[tuple[Tensor, Tensor, Tensor]]:
    x, weight, gradient = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(rows, outputs)
    pairs = [(x, weight.t()), (gradient.t(), x)] + ([(gradient, weight)] if passes_on else [])
    return [(left, right, torch.empty(len(left), right.shape[1])) for left, right in pairs]
