"""A direct call of a torch optimiser's fused kernel: `fused_kernel(optimizer, parameters) -> f(gradients, factor)`.

For a small model, `Optimizer.step()` spends several times as long on hooks, profiling, collecting state and sorting
tensors by type as on the kernel. The results are those of `step()`, bit for bit. `KERNELS` maps an optimiser class to a
function of parameters with the same type and device. An optimiser that is not in the table, or that has hooks, no state
yet or `fused=False`, takes its usual step.
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
"""Takes a step with gradients times a factor. Returns whether it was fused; only a fused kernel can be used again."""

Prepared = Callable[[Tensors, Tensor | None], None]
"""The kernel for parameters of one type and device. Its arguments: the gradients, and their divisor."""


def _adam(function: Callable) -> Callable[[dict, Tensors, list[dict]], Prepared]:
    def prepare(group: dict, parameters: Tensors, state: list[dict]) -> Prepared:
        first, second = ([s[name] for s in state] for name in ("exp_avg", "exp_avg_sq"))
        counts = joined(state, "step")
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

    It holds the tensors of the optimiser's present state: make a new kernel when these tensors have been replaced. A
    new kernel replaces the step counts, so do not use an earlier kernel of these parameters any more.
    """
    place = {id(p): i for i, p in enumerate(parameters)}
    parts = []
    for group in optimizer.param_groups:
        indices = [place[id(p)] for p in group["params"] if id(p) in place]
        for alike in alike_in(indices, parameters):
            prepared = _prepared(optimizer, group, [parameters[i] for i in alike])
            if prepared is None:
                return lambda gradients, factor: _usual_step(optimizer, parameters, gradients, factor)
            parts.append((alike, parameters[alike[0]].device, prepared))

    @torch.no_grad()
    def step(gradients: Tensors, factor: float) -> bool:
        # The kernel applies the factor, so that no extra pass over the gradients is needed.
        for indices, device, kernel in parts:
            kernel([gradients[i] for i in indices], None if factor == 1.0 else _divisor(factor, device))
        return True

    return step


@cache
def _divisor(factor: float, device: torch.device) -> Tensor:
    """The divisor of the gradients. Always float32, because the kernel needs it; it holds a batch size exactly."""
    return torch.tensor(1 / factor, dtype=torch.float32, device=device)


def alike_in(indices: list[int], parameters: Tensors) -> list[list[int]]:
    """The indices grouped by type and device of their parameters: one call of a kernel takes tensors of one kind."""
    kinds: dict[Any, list[int]] = defaultdict(list)
    for i in indices:
        kinds[parameters[i].device, parameters[i].dtype].append(i)
    return list(kinds.values())


def joined(state: list[dict], name: str) -> Tensor:
    """One tensor for a number in the state of several parameters, each a view of it: one call then counts all."""
    if _are_joined(state, name):
        return state[0][name]._base
    whole = torch.stack([s[name] for s in state])
    for own, part in zip(state, whole.unbind(), strict=True):
        own[name] = part
    return whole


def _are_joined(state: list[dict], name: str) -> bool:
    """Whether these numbers, in this order, are the whole of one tensor already."""
    base = state[0][name]._base
    places = enumerate(s[name] for s in state)
    return (
        base is not None
        and base.shape == (len(state),)
        and all(own._base is base and own.storage_offset() == place for place, own in places)
    )


def _prepared(optimizer: torch.optim.Optimizer, group: dict, own: Tensors) -> Prepared | None:
    if type(optimizer) not in KERNELS or not is_plain(optimizer, group):
        return None
    try:
        return KERNELS[type(optimizer)](group, own, [optimizer.state[p] for p in own])
    except KeyError:  # a parameter that has not made a step yet
        return None


def is_plain(optimizer: torch.optim.Optimizer, group: dict) -> bool:
    """Whether a step of this group is the fused kernel alone."""
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return bool(group.get("fused")) and not group["maximize"] and not group.get("amsgrad") and not hooks


def _usual_step(optimizer: torch.optim.Optimizer, parameters: Tensors, gradients: Tensors, factor: float) -> bool:
    scale_gradients(gradients, factor)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    return False
