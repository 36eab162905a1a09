"""Which optimiser a run uses: `OptimizerSpec(name, lr, …).joint() -> JointOptim`, and what else `SVI` accepts.

The table `OPTIMIZERS` maps a name to a torch class and the fields of the description that it takes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from pyro.optim import PyroOptim

from pathscore.elbos import ELBOS
from pathscore.errors import UsageError, unknown
from pathscore.estimators.calls import read_call
from pathscore.svi.joint_optim import JointOptim
from pathscore.svi.schedules import make_schedule

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
        kind, taken = OPTIMIZERS[self.name]
        options = {field: getattr(self, field) for field in taken}
        # Every class in OPTIMIZERS takes `fused`, but their base class does not declare it.
        return lambda groups: kind(groups, lr=self.lr, fused=True, **options)  # type: ignore[call-arg]

    def joint(self) -> JointOptim:
        """The `JointOptim` of this description."""
        schedule = make_schedule(
            self.schedule,
            warmup_steps=self.warmup_steps,
            total_steps=self.total_steps,
            steps_per_pass=self.steps_per_pass,
        )
        return JointOptim(self.factory(), clip_norm=self.clip_norm, schedule=schedule, estimator_lr=self.estimator_lr)


def named(text: str) -> OptimizerSpec:
    """The description in a word: "adam", or with options "adam(lr=0.03, clip_norm=5)".

    Raises: UsageError for an unknown name or option.
    """
    name, options = read_call(text, "optim")
    if name in ELBOS:
        raise UsageError(f"optim is {name!r}, an objective: name it as loss={name!r}")
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    known = {field.name for field in fields(OptimizerSpec)} - {"name"}
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, sorted(known))
    return OptimizerSpec(name=name, **options)


def as_optim(optim: Any) -> PyroOptim:
    """The `PyroOptim` of an `OptimizerSpec`, of "adam" or "adam(lr=0.03)", of a torch class or factory, or itself.

    Raises: UsageError for anything else, an optimiser that already holds parameters among it.
    """
    if isinstance(optim, PyroOptim):
        return optim
    if optim is None or isinstance(optim, str):
        return named(optim or "adam").joint()
    if isinstance(optim, OptimizerSpec):
        return optim.joint()
    if callable(optim) and not isinstance(optim, torch.optim.Optimizer):
        return JointOptim(optim)  # type: ignore[arg-type]  # a factory, after the check above
    raise UsageError(
        f"optim is a {type(optim).__name__}: pass OptimizerSpec(…), or a factory such as "
        "lambda parameters: torch.optim.Adam(parameters, lr=1e-3), because parameters appear while the program runs"
    )
