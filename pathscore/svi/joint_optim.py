"""One torch optimiser over every parameter of a run: `JointOptim.adopt(named)`, then `JointOptim.advance()`.

Pyro's own wrapper makes one torch optimiser per parameter, which costs as much as a small model's gradient.
`JointOptim` keeps Pyro's `PyroOptim` interface and holds a single fused optimiser instead. Parameters may join at any
step, each under its name in the program; state is saved by name, so the order in which they joined does not matter.
"""

from collections.abc import Callable, Iterable
from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor

from pathscore.machine.foreach import gradient_norm, scale_gradients
from pathscore.machine.fused import Kernel, fused_kernel
from pathscore.machine.fused_on_device import DeviceKernel, device_kernel
from pathscore.svi.schedules import Schedule

Named = tuple[str, Tensor]


class JointOptim(PyroOptim):
    """A `PyroOptim` that holds one torch optimiser.

    make: the torch optimiser as a function of a list of parameter groups, e.g. the class `torch.optim.RAdam`.
    clip_norm: bound of the norm of the whole gradient, None for none.
    schedule: factor of the rate as a function of the number of steps taken.
    estimator_lr: base rate of parameters adopted with `estimator=True`, None for the common one.
    """

    def __init__(
        self,
        make: Callable[[Any], torch.optim.Optimizer],
        *,
        clip_norm: float | None = None,
        schedule: Schedule | None = None,
        estimator_lr: float | None = None,
    ):
        super().__init__(make, {})
        self.make = make
        self.clip_norm = clip_norm
        self.schedule = schedule
        self.estimator_lr = estimator_lr
        self.torch_optim: torch.optim.Optimizer | None = None
        self.steps = 0
        self._named: dict[str, Tensor] = {}
        self._ids: set[int] = set()
        self._base_rates: list[float] = []
        self._waiting: dict[str, dict] = {}
        self._kernel: tuple[list[int], Kernel] | None = None  # for the parameters of the latest `update`

    def holds(self, parameter: Tensor) -> bool:
        """Whether this very tensor has been adopted."""
        return id(parameter) in self._ids

    def adopt(self, named: Iterable[Named], *, estimator: bool = False) -> None:
        """Let tensors join the optimiser under their names; state that waits for a name is handed to it."""
        fresh = [(name, parameter) for name, parameter in named if not self.holds(parameter)]
        if not fresh:
            return
        group: dict[str, Any] = {"params": [parameter for _, parameter in fresh]}
        if estimator and self.estimator_lr is not None:
            group["lr"] = self.estimator_lr
        if self.torch_optim is None:
            self.torch_optim = self.make([group])
        else:
            self.torch_optim.add_param_group(group)
        self._base_rates += [g["lr"] for g in self.torch_optim.param_groups[len(self._base_rates) :]]
        for name, parameter in fresh:
            self._ids.add(id(parameter))
            self._named[name] = parameter
            self._hand_over(name, parameter)
        # By name, so that the clipping norm is summed in the same order before and after a resume.
        self._named = dict(sorted(self._named.items()))
        self._kernel = None

    def parameters(self) -> Iterable[Tensor]:
        """The adopted parameters, by name."""
        return self._named.values()

    def gradients(self) -> list[Tensor]:
        """The gradients of all adopted parameters that have one, by name."""
        return [p.grad for p in self._named.values() if p.grad is not None]

    def advance(self, norm: float | None = None) -> None:
        """One step with the gradients as they are; `norm` is their norm where clipping needs it."""
        if self.torch_optim is None:
            return
        pairs = [(p, p.grad) for p in self._named.values()]
        found = [(p, g) for p, g in pairs if g is not None]
        gradients = [g for _, g in found]
        if norm is None and self.clip_norm is not None:
            norm = gradient_norm(gradients)
        self.update([p for p, _ in found], gradients, norm)

    def update(
        self, parameters: list[Tensor], gradients: list[Tensor], norm: float | None = None, factor: float = 1.0
    ) -> None:
        """One step of adopted parameters with `factor` × these gradients; `norm` is the product's, for clipping."""
        if self.torch_optim is None:  # nothing has had a gradient yet
            return
        if gradients:
            self._prepare(gradients, norm)
            ids = [id(p) for p in parameters]
            if self._kernel is None or self._kernel[0] != ids:
                self._kernel = ids, fused_kernel(self.torch_optim, parameters)
            if not self._kernel[1](gradients, factor):
                self._kernel = None  # its state is made by its first step
        self.steps += 1

    def _prepare(self, gradients: list[Tensor], norm: float | None) -> None:
        """Clip the gradients and set the rates of the coming step."""
        if self.clip_norm is not None and norm is not None and norm > self.clip_norm:
            scale_gradients(gradients, self.clip_norm / (norm + 1e-6))
        self.set_rates()

    def device_kernel(self, parameters: list[Tensor]) -> DeviceKernel | None:
        """The step of these parameters as one that a GPU can replay; None where there is no such step yet, or ever."""
        return device_kernel(self.torch_optim, parameters) if self.torch_optim is not None else None

    def set_rates(self) -> None:
        """Give the parameter groups the rates of the coming step."""
        if self.schedule is not None and self.torch_optim is not None:
            factor = self.schedule(self.steps)
            for group, base in zip(self.torch_optim.param_groups, self._base_rates, strict=True):
                group["lr"] = base * factor

    def rate(self) -> float:
        """The rate of the latest step (of the first parameter group)."""
        return float(self.torch_optim.param_groups[0]["lr"]) if self.torch_optim else float("nan")

    def __call__(self, params: Iterable[Tensor], *args, **kwargs) -> None:
        """Pyro's interface: a step over `params`, named as in Pyro's parameter store."""
        store = pyro.get_param_store()
        named = [(store.param_name(p) or "", p) for p in params if p.grad is not None and not self.holds(p)]
        self.adopt(sorted(named, key=lambda pair: pair[0]))
        self.advance()

    def get_state(self) -> dict:
        """Steps taken, and per parameter name the torch optimiser's tensors: safe for `weights_only=True`."""
        state = self.torch_optim.state if self.torch_optim else {}
        return {
            "steps": self.steps,
            "by_name": {name: dict(state[p]) for name, p in self._named.items() if p in state} | self._waiting,
        }

    def set_state(self, state_dict: dict) -> None:
        """Continue from `get_state`, whether or not the parameters have been adopted yet."""
        self.steps, self._kernel = int(state_dict["steps"]), None
        # Copies: the run that the state comes from may go on.
        self._waiting = {
            name: {key: value.clone() if isinstance(value, Tensor) else value for key, value in saved.items()}
            for name, saved in state_dict["by_name"].items()
        }
        for name, parameter in self._named.items():
            self._hand_over(name, parameter)

    def _hand_over(self, name: str, parameter: Tensor) -> None:
        saved = self._waiting.pop(name, None)
        if saved is not None and self.torch_optim is not None:
            moved = {key: _beside(value, parameter) for key, value in saved.items()}
            self.torch_optim.state[parameter] = moved


def _beside(value: Any, parameter: Tensor) -> Any:
    return value.to(parameter.device) if isinstance(value, Tensor) else value
