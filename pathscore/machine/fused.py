"""A torch optimiser's fused kernel without what surrounds it: `fused_kernel(optimizer, parameters) -> f(gradients)`.

`Optimizer.step()` spends several times as long on hooks, profiling, collecting state and sorting tensors by type as
the kernel does on a small model. The numbers are those of `step()`, to the bit. `KERNELS` maps an optimiser to a
function of parameters alike in type and place; an optimiser that is not in it, or is set up otherwise (hooks, no state
yet, `fused=False`), takes its usual step.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pathscore.machine.foreach import scale_gradients

Tensors = list[Tensor]
Kernel = Callable[[Tensors, float], bool]
"""Takes a step with gradients times a factor; says whether it is a fused one, which can be kept."""

Prepared = Callable[[Tensors, Tensor | None], None]
"""The kernel of parameters that are alike: gradients, and what divides them."""


def _adam(function: Callable) -> Callable[[dict, Tensors, list[dict]], Prepared]:
    def prepare(group: dict, parameters: Tensors, state: list[dict]) -> Prepared:
        first, second = ([s[name] for s in state] for name in ("exp_avg", "exp_avg_sq"))
        counts = _joined(state, "step")
        steps = [s["step"] for s in state]

        def kernel(gradients: Tensors, divisor: Tensor | None) -> None:
            counts.add_(1)
            function(
                parameters,
                gradients,
                first,
                second,
                [],
                steps,
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
    buffers = [s["momentum_buffer"] for s in state] if group["momentum"] else []

    def kernel(gradients: Tensors, divisor: Tensor | None) -> None:
        torch._fused_sgd_(  # pyright: ignore[reportPrivateImportUsage]  # no public name
            parameters,
            gradients,
            buffers,
            grad_scale=divisor,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=False,
            is_first_step=False,
        )

    return kernel


# torch exports these operations under no public name.
KERNELS: dict[type[torch.optim.Optimizer], Callable[[dict, Tensors, list[dict]], Prepared]] = {
    torch.optim.Adam: _adam(torch._fused_adam_),  # pyright: ignore[reportPrivateImportUsage]  # no public name
    torch.optim.AdamW: _adam(torch._fused_adamw_),  # pyright: ignore[reportPrivateImportUsage]  # no public name
    torch.optim.SGD: _sgd,
}


def fused_kernel(optimizer: torch.optim.Optimizer, parameters: Tensors) -> Kernel:
    """A step of the optimiser on gradients in the order of `parameters`.

    It holds the optimiser's state as it is now: make another one when tensors of the state have been replaced. Making
    one replaces step counts, so an earlier kernel of these parameters counts no more.
    """
    place = {id(p): i for i, p in enumerate(parameters)}
    parts = []
    for group in optimizer.param_groups:
        indices = [place[id(p)] for p in group["params"] if id(p) in place]
        for alike in _alike(indices, parameters):
            prepared = _prepared(optimizer, group, [parameters[i] for i in alike])
            if prepared is None:
                return lambda gradients, factor: _usual_step(optimizer, parameters, gradients, factor)
            parts.append((alike, parameters[alike[0]].device, prepared))

    @torch.no_grad()
    def step(gradients: Tensors, factor: float) -> bool:
        # Within the kernel the factor costs no pass over the gradients of its own.
        for indices, device, kernel in parts:
            kernel([gradients[i] for i in indices], None if factor == 1.0 else _divisor(factor, device))
        return True

    return step


@cache
def _divisor(factor: float, device: torch.device) -> Tensor:
    """What a kernel divides gradients by: a float32, whatever they are, which holds a number of data exactly."""
    return torch.tensor(1 / factor, dtype=torch.float32, device=device)


def _alike(indices: list[int], parameters: Tensors) -> list[list[int]]:
    """The indices by type and place of their parameters: one call of a kernel takes tensors of one kind."""
    kinds: dict[Any, list[int]] = defaultdict(list)
    for i in indices:
        kinds[parameters[i].device, parameters[i].dtype].append(i)
    return list(kinds.values())


def _joined(state: list[dict], name: str) -> Tensor:
    """Numbers of the state of several parameters as one tensor of which each keeps its part: counted in one call."""
    joined = torch.stack([s[name] for s in state])
    for own, part in zip(state, joined.unbind(), strict=True):
        own[name] = part
    return joined


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
