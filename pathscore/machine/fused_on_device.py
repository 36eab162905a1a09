"""Adam's fused kernel with all that it needs on the device, so that a GPU can replay it with the rest of a step.

`device_kernel(optimizer, parameters) -> DeviceKernel | None`. Rates are tensors, which a schedule fills; a step that is
not finite is passed over by the kernel itself, and counted as none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pathscore.machine.fused import Tensors, alike_in, is_plain, joined

# torch exports these operations under no public name.
FUNCTIONS = {torch.optim.Adam: torch._fused_adam_, torch.optim.AdamW: torch._fused_adamw_}  # pyright: ignore


@dataclass
class Part:
    """The parameters of one group with one type, and their state."""

    group: dict
    indices: list[int]
    parameters: Tensors
    state: list[dict]
    counts: Tensor
    rate: Tensor
    filled: float = field(default=float("nan"))

    def fill(self) -> None:
        """Put the group's present rate where the kernel reads it."""
        if self.filled != self.group["lr"]:
            self.filled = float(self.group["lr"])
            self.rate.fill_(self.filled)


class DeviceKernel:
    """A step of an optimiser on gradients in the order of its parameters: `kernel(gradients, divisor, bad)`.

    divisor: of the gradients, a float32 scalar, None for one. bad: a float32 scalar, 1 where nothing may move.
    moved: every tensor that a step changes.
    """

    def __init__(self, function, parts: list[Part]) -> None:
        self.function, self.parts = function, parts
        state = [s[name] for part in parts for s in part.state for name in ("exp_avg", "exp_avg_sq")]
        self.moved = [*(p for part in parts for p in part.parameters), *state, *(part.counts for part in parts)]

    def __call__(self, gradients: Tensors, divisor: Tensor | None, bad: Tensor) -> None:
        for part in self.parts:
            part.counts.add_(1 - bad)
            self.function(
                part.parameters,
                [gradients[i] for i in part.indices],
                [s["exp_avg"] for s in part.state],
                [s["exp_avg_sq"] for s in part.state],
                [],
                [s["step"] for s in part.state],
                grad_scale=divisor,
                found_inf=bad,
                amsgrad=False,
                beta1=part.group["betas"][0],
                beta2=part.group["betas"][1],
                lr=part.rate,
                weight_decay=part.group["weight_decay"],
                eps=part.group["eps"],
                maximize=False,
            )

    def fill_rates(self) -> None:
        """Put the present rates where the kernel reads them."""
        for part in self.parts:
            part.fill()

    def is_current(self) -> bool:
        """Whether the optimiser still holds these tensors."""
        return all(s["step"]._base is part.counts for part in self.parts for s in part.state)


def device_kernel(optimizer: torch.optim.Optimizer, parameters: Tensors) -> DeviceKernel | None:
    """The kernel for these parameters; None where a step of this optimiser is another, or state is still missing."""
    place = {id(p): i for i, p in enumerate(parameters)}
    function = FUNCTIONS.get(type(optimizer))
    parts = []
    for group in optimizer.param_groups:
        found = [place[id(p)] for p in group["params"] if id(p) in place]
        if function is None or (found and not is_plain(optimizer, group)):
            return None
        for indices in alike_in(found, parameters):
            own = [parameters[i] for i in indices]
            if any("step" not in optimizer.state.get(p, {}) for p in own):
                return None
            state = [optimizer.state[p] for p in own]
            rate = torch.zeros((), dtype=torch.float32, device=own[0].device)
            parts.append(Part(group, indices, own, state, joined(state, "step"), rate))
    return DeviceKernel(function, parts) if sum(len(part.indices) for part in parts) == len(parameters) else None
