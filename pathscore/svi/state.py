"""The state of an `SVI` as tensors and plain values: `state_of(svi) -> dict`, `restore(svi, state, args)`.

    {"steps": int, "modules": {"model": …, "guide": …, "estimators": …}, "params": {name: unconstrained}, "optim": …}

Modules keep their own state (buffers too); "params" holds what the program makes with `pyro.param`. Everything is
matched by name and shape, in place. Random states are not part of it.
"""

from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor

from pathscore.errors import UsageError
from pathscore.svi.joint_optim import JointOptim
from pathscore.programs.recorder import plain_name
from pathscore.machine.streams import beside

if TYPE_CHECKING:
    from pathscore.svi import SVI


def state_of(svi: "SVI") -> dict[str, Any]:
    """The state; `torch.load` reads it back with weights_only=True. Raises: UsageError under a foreign `PyroOptim`."""
    return {
        "steps": svi.steps,
        "modules": {name: module.state_dict() for name, module in svi.modules().items()},
        "params": {**svi.recorder.waiting, **{name: p.detach() for name, p in loose(svi).items()}},
        "optim": _joint(svi).get_state(),
    }


def restore(svi: "SVI", state: dict[str, Any], args: tuple = ()) -> None:
    """Continue from `state_of`: nothing is changed when it does not fit.

    args: an example batch. Programs that make parameters when they first run (autoguides, `pyro.param`, some
        estimators) are run with it once, beside the random stream, before the values are put in place.

    Raises: UsageError that names what is missing, unexpected or of another shape.
    """
    optim = _joint(svi)
    unknown = state["params"].keys() - svi.recorder.params.keys()
    if args and (unknown or differences(svi, state) or svi.compiled is not None):
        rehearse(svi, args)
    found = differences(svi, state)
    if found:
        more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
        raise UsageError(f"the saved state does not fit this program: {'; '.join(found[:4])}{more}")
    for name, module in svi.modules().items():
        module.load_state_dict(state["modules"][name])
    svi.resume(int(state["steps"]), args)
    svi.recorder.waiting = {name: p.clone() for name, p in state["params"].items()}
    with torch.no_grad():
        for name in svi.recorder.waiting.keys() & svi.recorder.params.keys():
            svi.recorder.params[name].copy_(svi.recorder.waiting.pop(name))
    optim.set_state(state["optim"])


def differences(svi: "SVI", state: dict[str, Any]) -> list[str]:
    """What keeps a saved state from fitting, one clause each: by module, by name, by shape."""
    live = {**_tensors({name: module.state_dict() for name, module in svi.modules().items()}), **loose(svi)}
    saved = {**_tensors(state["modules"]), **state["params"]}
    shapes = [
        f"{plain_name(name)} is {tuple(saved[name].shape)} in it, {tuple(live[name].shape)} in the program"
        for name in live
        if name in saved and live[name].shape != saved[name].shape
    ]
    missing = [name for name in live if name not in saved]
    extra = [name for name in saved if name not in live]
    if not any(name in state["params"] or name in loose(svi) for name in missing):
        # A parameter outside the modules exists once the program has asked for it, maybe later in training.
        extra = [name for name in extra if name not in state["params"]]
    lost = [f"{plain_name(name)} is not in it" for name in missing]
    return [*shapes, *lost, *(f"{plain_name(name)} is not in the program" for name in extra)]


def loose(svi: "SVI") -> dict[str, Tensor]:
    """The parameters that belong to no module of the run, by name: those of `pyro.param`."""
    owned = {id(p) for module in svi.modules().values() for p in module.parameters()}
    return {name: p for name, p in svi.recorder.params.items() if id(p) not in owned}


def rehearse(svi: "SVI", args: tuple) -> None:
    """One pass of the programs, which makes their parameters; no optimiser step, and the random stream stays."""
    try:
        with svi.scope(), beside(svi.device()), pyro.validation_enabled(False):
            svi.loss_and_grads(svi.model, svi.guide, *args)
            svi.adopt()
    finally:
        svi.recorder.forget()
        for parameter in svi.parameters().values():
            parameter.grad = None


def _tensors(modules: dict[str, dict[str, Any]]) -> dict[str, Tensor]:
    named = {f"{kind}.{name}": value for kind, state in modules.items() for name, value in state.items()}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def _joint(svi: "SVI") -> JointOptim:
    if not isinstance(svi.optim, JointOptim):
        raise UsageError("a PyroOptim keeps its state per tensor and cannot be resumed: pass SVI an OptimizerSpec")
    return svi.optim
