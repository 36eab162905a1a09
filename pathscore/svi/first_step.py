"""What the first step of a run shows: `check(parameters, elbo)` refuses what would silently train wrongly.

Runs on the gradients and the sample messages of that step, before the optimiser moves anything.
"""

import warnings
from typing import Any

from pyro.infer import TraceEnum_ELBO

from pathscore.elbos import ELBOS
from pathscore.errors import UsageError
from pathscore.programs.laws import is_straight_through
from pathscore.programs.matching import mismatch
from pathscore.programs.recorder import plain_name
from pathscore.svi.parameters import Parameters


def check(parameters: Parameters, elbo: Any, require_gradients: bool = True) -> None:
    """Raise UsageError: nothing to train, a parameter without gradient, a program that Pyro's objective gets wrong."""
    params = parameters.named()
    if not params:
        raise UsageError(
            "nothing to train: neither model nor guide registers a parameter; "
            "call pyro.module(name, module) or pyro.param(name, value) inside them"
        )
    check_match(parameters, elbo)
    _check_objective(parameters, elbo)
    missing = [plain_name(name) for name, p in params.items() if p.requires_grad and p.grad is None]
    if missing and require_gradients:
        raise UsageError(
            f"no gradient reaches {', '.join(missing[:5])}{' and others' * (len(missing) > 5)}: use it in the "
            "program, freeze it with requires_grad_(False), or pass require_gradients=False"
        )


def check_match(parameters: Parameters, elbo: Any) -> None:
    """Raise UsageError where model and guide, run on their sides by one of Pyro's objectives, do not fit each other."""
    sides = parameters.recorder.sides
    if not sides["model"] or not sides["guide"]:
        return
    reason = mismatch(sides["model"], sides["guide"], sums_out=isinstance(elbo, TraceEnum_ELBO))
    if reason:
        raise UsageError(reason)


def _check_objective(parameters: Parameters, elbo: Any) -> None:
    kinds = {entry.kind: entry for entry in ELBOS.values()}
    entry = next((kinds[cls] for cls in type(elbo).__mro__ if cls in kinds), None)
    if entry is None:
        return
    if entry.stock_fault and type(elbo) is entry.kind:
        raise UsageError(f"{entry.kind.__name__} is wrong, {entry.stock_fault}: use make_elbo({entry.name!r})")
    _warn_of_straight_through(parameters, elbo)
    why = entry.program_refusal(parameters.recorder.sampled())
    if why:
        raise UsageError(f"{entry.kind.__name__} is wrong for this program: {why}")


def _warn_of_straight_through(parameters: Parameters, elbo: Any) -> None:
    """Pyro's own objectives differentiate and score a relaxed value where such a law draws a discrete one."""
    for msg in parameters.recorder.sampled():
        if not msg["is_observed"] and is_straight_through(msg["fn"]):
            warnings.warn(
                f"site {msg['name']!r}: the gradient of a straight-through law is biased, and its density that of a "
                "relaxed value: name an estimator, as in make_elbo('trace', 'auto')",
                stacklevel=2,
            )
            return
