"""One torch optimiser over every parameter of a run, by name: `JointOptim.adopt(named)`, then `JointOptim.advance()`.

Pyro's own wrapper makes one torch optimiser per parameter, which costs as much as a small model's gradient. `JointOptim`
keeps Pyro's `PyroOptim` interface and holds a single fused optimiser instead. Parameters may join at any step, each with
the name it has in the program; state is saved by name, so it does not depend on the order in which they joined.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor

from pathscore.errors import UsageError, unknown
from pathscore.schedules import Schedule, make_schedule

Named = tuple[str, Tensor]

# name → the torch class and the fields of OptimizerSpec that it takes beside the rate.
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], tuple[str, ...]]] = {
    "adam": (torch.optim.Adam, ("betas", "eps", "weight_decay")),
    "adamw": (torch.optim.AdamW, ("betas", "eps", "weight_decay")),
    "sgd": (torch.optim.SGD, ("momentum", "weight_decay")),
}


@dataclass(frozen=True)
class OptimizerSpec:
    """What to optimise with.

    `lr` is the base rate of model and guide, `estimator_lr` that of the estimators' own parameters (`lr` when None).
    `clip_norm` bounds the Euclidean norm of the whole gradient. `schedule` is a name of `SCHEDULES` or a list of
    (steps, factor); `cosine` and `linear` need `total_steps`, `iwae` needs `steps_per_pass`.

    Raises: UsageError for an unknown name or a value out of range.
    """

    name: str = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    clip_norm: float | None = None
    schedule: str | Sequence[tuple[int, float]] | None = None
    warmup_steps: int = 0
    total_steps: int | None = None
    steps_per_pass: int | None = None
    estimator_lr: float | None = None

    def __post_init__(self):
        if self.name not in OPTIMIZERS:
            raise unknown("optimizer", self.name, OPTIMIZERS)
        rates = {"lr": self.lr, "clip_norm": self.clip_norm, "estimator_lr": self.estimator_lr}
        for field, value in rates.items():
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{field} must be a positive number, got {value}")

    def factory(self) -> Callable[[Any], torch.optim.Optimizer]:
        """The torch optimiser of this description, as a function of its parameter groups."""
        kind, fields = OPTIMIZERS[self.name]
        options = {field: getattr(self, field) for field in fields}
        return lambda groups: kind(groups, lr=self.lr, fused=True, **options)  # type: ignore[call-arg]

    def joint(self) -> "JointOptim":
        """The `JointOptim` of this description."""
        schedule = make_schedule(
            self.schedule,
            warmup_steps=self.warmup_steps,
            total_steps=self.total_steps,
            steps_per_pass=self.steps_per_pass,
        )
        return JointOptim(
            self.factory(), clip_norm=self.clip_norm, schedule=schedule, estimator_lr=self.estimator_lr
        )


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
        self._base_rates.append(self.torch_optim.param_groups[-1]["lr"])
        for name, parameter in fresh:
            self._ids.add(id(parameter))
            self._named[name] = parameter
            self._hand_over(name, parameter)
        # By name, so that the clipping norm is summed in the same order before and after a resume.
        self._named = dict(sorted(self._named.items()))

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
        if self.clip_norm is not None:
            self._clip(gradient_norm(self.gradients()) if norm is None else norm)
        if self.schedule is not None:
            factor = self.schedule(self.steps)
            for group, base in zip(self.torch_optim.param_groups, self._base_rates, strict=True):
                group["lr"] = base * factor
        self.torch_optim.step()
        self.steps += 1

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
        self.steps = int(state_dict["steps"])
        self._waiting = dict(state_dict["by_name"])
        for name, parameter in self._named.items():
            self._hand_over(name, parameter)

    def _hand_over(self, name: str, parameter: Tensor) -> None:
        saved = self._waiting.pop(name, None)
        if saved is not None and self.torch_optim is not None:
            moved = {key: _beside(value, parameter) for key, value in saved.items()}
            self.torch_optim.state[parameter] = moved

    def _clip(self, norm: float) -> None:
        assert self.clip_norm is not None
        if norm > self.clip_norm:
            torch._foreach_mul_(self.gradients(), self.clip_norm / (norm + 1e-6))


def gradient_norm(gradients: Sequence[Tensor]) -> float:
    """Euclidean norm of all gradients together; in float64 when the squares overflow the gradients' own type."""
    if not gradients:
        return 0.0
    norms = torch._foreach_norm(gradients)
    total = torch.linalg.vector_norm(torch.stack([norm.to(norms[0]) for norm in norms])).item()
    if total != total or total != float("inf"):
        return total
    return sum(g.double().square().sum().item() for g in gradients) ** 0.5


def _beside(value: Any, parameter: Tensor) -> Any:
    return value.clone().to(parameter.device) if isinstance(value, Tensor) else value


def as_optim(optim: Any) -> PyroOptim:
    """The `PyroOptim` of an `OptimizerSpec`, an optimiser's name, a torch optimiser class or factory, or itself.

    Raises: UsageError for anything else, an optimiser that already holds parameters among it.
    """
    if isinstance(optim, PyroOptim):
        return optim
    if optim is None or isinstance(optim, str):
        return OptimizerSpec(name=optim or "adam").joint()
    if isinstance(optim, OptimizerSpec):
        return optim.joint()
    if callable(optim) and not isinstance(optim, torch.optim.Optimizer):
        return JointOptim(optim)
    raise UsageError(
        f"optim is a {type(optim).__name__}: pass OptimizerSpec(…), or a factory such as "
        "lambda parameters: torch.optim.Adam(parameters, lr=1e-3), because parameters appear while the program runs"
    )
