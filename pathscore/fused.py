"""A torch optimiser's fused kernel without what surrounds it: `fused_kernel(optimizer, parameters) -> f(gradients)`.

`Optimizer.step()` spends more time on hooks, profiling and collecting state than the kernel does on a small model. The
numbers are those of `step()`, to the bit. `KERNELS` maps an optimiser to a function of one parameter group; an
optimiser that is not in it, or is set up otherwise (hooks, no state yet, `fused=False`), takes its usual step.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from pathscore.foreach import scale_gradients

Tensors = list[Tensor]
Kernel = Callable[[Tensors, float], bool]
"""Takes a step with gradients times a factor; says whether it is a fused one, which can be kept."""

Prepared = Callable[[Tensors, Tensor | None], None]
"""One parameter group's kernel: gradients, and what divides them."""


def _adam(function: Callable) -> Callable[[dict, Tensors, list[dict]], Prepared]:
    def prepare(group: dict, parameters: Tensors, state: list[dict]) -> Prepared:
        first, second, steps = ([s[name] for s in state] for name in ("exp_avg", "exp_avg_sq", "step"))

        def kernel(gradients: Tensors, divisor: Tensor | None) -> None:
            function(
                parameters,
                gradients,
                first,
                second,
                [],
                steps,
                fused=True,
                grad_scale=divisor,
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )

        return kernel

    return prepare


def _sgd(group: dict, parameters: Tensors, state: list[dict]) -> Prepared:
    buffers: list[Any] = [s["momentum_buffer"] if group["momentum"] else None for s in state]

    def kernel(gradients: Tensors, divisor: Tensor | None) -> None:
        sgd(
            parameters,
            gradients,
            buffers,
            has_sparse_grad=False,
            fused=True,
            grad_scale=divisor,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=False,
        )

    return kernel


KERNELS: dict[type[torch.optim.Optimizer], Callable[[dict, Tensors, list[dict]], Prepared]] = {
    torch.optim.Adam: _adam(adam),
    torch.optim.AdamW: _adam(adamw),
    torch.optim.SGD: _sgd,
}


def fused_kernel(optimizer: torch.optim.Optimizer, parameters: Tensors) -> Kernel:
    """A step of the optimiser on gradients in the order of `parameters`.

    It holds the optimiser's state as it is now: make another one when tensors of the state have been replaced.
    """
    place = {id(p): i for i, p in enumerate(parameters)}
    parts = []
    for group in optimizer.param_groups:
        indices = [place[id(p)] for p in group["params"] if id(p) in place]
        own = [parameters[i] for i in indices]
        prepared = _prepared(optimizer, group, own)
        if prepared is None:
            return lambda gradients, factor: _usual_step(optimizer, parameters, gradients, factor)
        parts.append((indices, prepared))

    @torch.no_grad()
    def step(gradients: Tensors, factor: float) -> bool:
        # Within the kernel the factor costs no pass over the gradients of its own. It takes a float32, whatever it
        # divides, and that holds the number of data in a batch exactly.
        divisor = None if factor == 1.0 else torch.tensor(1 / factor, dtype=torch.float32, device=gradients[0].device)
        for indices, kernel in parts:
            kernel([gradients[i] for i in indices], divisor)
        return True

    return step


def _prepared(optimizer: torch.optim.Optimizer, group: dict, own: Tensors) -> Prepared | None:
    plain = group.get("fused") and not group["maximize"] and not group.get("amsgrad")
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if type(optimizer) not in KERNELS or not plain or hooks:
        return None
    try:
        return KERNELS[type(optimizer)](group, own, [optimizer.state[p] for p in own])
    except KeyError:  # a parameter that has not made a step yet
        return None


def _usual_step(optimizer: torch.optim.Optimizer, parameters: Tensors, gradients: Tensors, factor: float) -> bool:
    scale_gradients(gradients, factor)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    return False
