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

Tensors = list[Tensor]
Kernel = Callable[[Tensors], bool]
"""Takes a step with gradients; says whether it is a fused one, which can be kept."""


def _adam(function: Callable) -> Callable[[dict, Tensors, list[dict]], Callable[[Tensors], None]]:
    def prepare(group: dict, parameters: Tensors, state: list[dict]) -> Callable[[Tensors], None]:
        first, second, steps = ([s[name] for s in state] for name in ("exp_avg", "exp_avg_sq", "step"))

        def kernel(gradients: Tensors) -> None:
            function(
                parameters,
                gradients,
                first,
                second,
                [],
                steps,
                fused=True,
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


def _sgd(group: dict, parameters: Tensors, state: list[dict]) -> Callable[[Tensors], None]:
    buffers: list[Any] = [s["momentum_buffer"] if group["momentum"] else None for s in state]

    def kernel(gradients: Tensors) -> None:
        sgd(
            parameters,
            gradients,
            buffers,
            has_sparse_grad=False,
            fused=True,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=False,
        )

    return kernel


KERNELS: dict[type[torch.optim.Optimizer], Callable[[dict, Tensors, list[dict]], Callable[[Tensors], None]]] = {
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
            return lambda gradients: _usual_step(optimizer, parameters, gradients)
        parts.append((indices, prepared))

    @torch.no_grad()
    def step(gradients: Tensors) -> bool:
        for indices, kernel in parts:
            kernel([gradients[i] for i in indices])
        return True

    return step


def _prepared(optimizer: torch.optim.Optimizer, group: dict, own: Tensors) -> Callable[[Tensors], None] | None:
    plain = group.get("fused") and not group["maximize"] and not group.get("amsgrad")
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if type(optimizer) not in KERNELS or not plain or hooks:
        return None
    try:
        return KERNELS[type(optimizer)](group, own, [optimizer.state[p] for p in own])
    except KeyError:  # a parameter that has not made a step yet
        return None


def _usual_step(optimizer: torch.optim.Optimizer, parameters: Tensors, gradients: Tensors) -> bool:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    return False
