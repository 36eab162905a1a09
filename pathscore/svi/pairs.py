"""Functions of a pair of programs that take a trained `SVI` too: `@takes_svi`.

evaluate(model, guide, x)      the programs, with the parameters that Pyro's global store shows
evaluate(svi, x)               the same with the parameters of that run
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import pyro
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pathscore.programs.recorder import MODULE_MARK
from pathscore.svi.parameters import listening, module_of
from pathscore.svi.svi import SVI

F = TypeVar("F", bound=Callable)


class UntrainedWarning(UserWarning):
    """An evaluation made parameters that no training has seen."""


def takes_svi(function: F) -> F:
    """Let a function of (model, guide, …) take an `SVI` in their place, and warn where it makes a parameter.

    A parameter that an evaluation makes has its first value: it was trained in another store, or not at all.
    """

    @functools.wraps(function)
    def taking(model: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(model, SVI):
            with model.scope(), Newcomers(model.model, model.guide) as newcomers:
                found = function(model.model, model.guide, *args, **kwargs)
            remedy = "take steps of this SVI first"
        else:
            guide = kwargs.get("guide", args[0] if args else None)
            with Newcomers(model, guide) as newcomers:
                found = function(model, *args, **kwargs)
            name = function.__name__
            remedy = f"pass the SVI that trained it, as in {name}(svi, …), or call it inside `with svi.scope():`"
        if newcomers.names:
            made = ", ".join(map(repr, newcomers.names[:5]))
            warnings.warn(
                f"{function.__name__} made {made}, with the first value that the program gives: {remedy}",
                UntrainedWarning,
                stacklevel=2,
            )
        return found

    return taking  # type: ignore[return-value]  # the same, with one more form of its first arguments


class Newcomers(Messenger):
    """Notes the parameters that the programs make inside: `names`.

    Those that are in Pyro's store or in the programs' own modules are there already, and a module named with
    `pyro.module` or `nn.Parameter` brings its values along. In the scope of a restored run, saved values wait for some.
    """

    def __init__(self, model: Any, guide: Any) -> None:
        super().__init__()
        self.names: list[str] = []
        modules = (module_of(program) for program in (model, guide))
        own = [p for module in modules if isinstance(module, nn.Module) for p in module.parameters()]
        self._known: list[Tensor] = [*own, *pyro.get_param_store()._params.values()]  # held: an id is used again
        self._ids = set(map(id, self._known))
        self._restored = {name for recorder in listening() for name in recorder.waiting}

    def _pyro_post_param(self, msg: Any) -> None:
        value, name, args = msg["value"], msg["name"], msg["args"]
        tensor = value.unconstrained() if hasattr(value, "unconstrained") else value
        brought = MODULE_MARK in name or name in self._restored or (len(args) > 1 and isinstance(args[1], nn.Parameter))
        if id(tensor) not in self._ids and not brought:
            self._known.append(tensor)
            self._ids.add(id(tensor))
            if name not in self.names:
                self.names.append(name)
