"""The state of a run's parameters as tensors and plain values: `state_of(parameters, optim)`, `restore(…, state)`.

    {"modules": {"model": …, "guide": …, "estimators": …}, "params": {name: unconstrained}, "optim": …}

Modules keep their own state (buffers too); "params" holds what the program makes with `pyro.param`. Everything is
matched by name and shape, in place. Random states are not part of it.
"""

from typing import Any

import torch
from torch import Tensor

from pathscore.errors import UsageError
from pathscore.programs.recorder import plain_name
from pathscore.svi.joint_optim import JointOptim
from pathscore.svi.parameters import Parameters


def state_of(parameters: Parameters, optim: Any) -> dict[str, Any]:
    """The state; `torch.load` reads it back with weights_only=True. Raises: UsageError under a foreign `PyroOptim`."""
    return {
        "modules": {name: module.state_dict() for name, module in parameters.modules().items()},
        "params": {
            **parameters.recorder.waiting,
            **{name: p.detach() for name, p in parameters.loose().items()},
        },
        "optim": _joint(optim).get_state(),
    }


def fits(parameters: Parameters, state: dict[str, Any]) -> bool:
    """Whether every tensor of the state has its place already, before the programs have run."""
    return not (state["params"].keys() - parameters.recorder.params.keys() or differences(parameters, state))


def restore(parameters: Parameters, optim: Any, state: dict[str, Any]) -> None:
    """Put the values of `state_of` in place: nothing is changed when they do not fit.

    Raises: UsageError that names what is missing, unexpected or of another shape.
    """
    joint = _joint(optim)
    found = differences(parameters, state)
    if found:
        more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
        raise UsageError(f"the saved state does not fit this program: {'; '.join(found[:4])}{more}")
    for name, module in parameters.modules().items():
        module.load_state_dict(state["modules"][name])
    recorder = parameters.recorder
    recorder.waiting = {name: p.clone() for name, p in state["params"].items()}
    with torch.no_grad():
        for name in recorder.waiting.keys() & recorder.params.keys():
            recorder.params[name].copy_(recorder.waiting.pop(name))
    joint.set_state(state["optim"])


def differences(parameters: Parameters, state: dict[str, Any]) -> list[str]:
    """What keeps a saved state from fitting, one clause each: by module, by name, by shape."""
    loose = parameters.loose()
    live = {**_tensors({name: module.state_dict() for name, module in parameters.modules().items()}), **loose}
    saved = {**_tensors(state["modules"]), **state["params"]}
    shapes = [
        f"{plain_name(name)} is {tuple(saved[name].shape)} in it, {tuple(live[name].shape)} in the program"
        for name in live
        if name in saved and live[name].shape != saved[name].shape
    ]
    missing = [name for name in live if name not in saved]
    extra = [name for name in saved if name not in live]
    if not any(name in state["params"] or name in loose for name in missing):
        # A parameter outside the modules exists once the program has asked for it, maybe later in training.
        extra = [name for name in extra if name not in state["params"]]
    extra = [name for name in extra if not _of_a_later_site(name, parameters)]
    lost = [f"{plain_name(name)} is not in it" for name in missing]
    return [*shapes, *lost, *(f"{plain_name(name)} is not in the program" for name in extra)]


def _of_a_later_site(name: str, parameters: Parameters) -> bool:
    """Whether it is what an estimator has learned at a site that has not come yet, when others have."""
    sites: Any = parameters.modules().get("estimators", ())
    return name.startswith("estimators.") and len(sites) > 0 and name.split(".")[1] not in sites


def _tensors(modules: dict[str, dict[str, Any]]) -> dict[str, Tensor]:
    named = {f"{kind}.{name}": value for kind, state in modules.items() for name, value in state.items()}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def _joint(optim: Any) -> JointOptim:
    if not isinstance(optim, JointOptim):
        raise UsageError("a PyroOptim keeps its state per tensor and cannot be resumed: pass SVI an OptimizerSpec")
    return optim
