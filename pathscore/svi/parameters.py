"""The parameters of one pair of programs: where they live, what they are called, which modules they belong to.

`Parameters(model, guide, estimators)` has a parameter store of its own, open inside `with parameters.scope():`. `SVI`
has one and hands it to whatever looks at a run: the checks of the first step, the saved state, the compiled step.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn

from pathscore.programs.recorder import Recorder


class Parameters:
    """What belongs to one model, one guide and the estimators of one objective.

    model, guide: Pyro programs. estimators: called for the module of the objective's estimators, None where there is
        none; it is filled when the program is first seen, so it is asked each time.
    recorder: the handler that notes parameters and sample sites of whatever runs inside `scope`.
    """

    def __init__(self, model: Callable, guide: Callable, estimators: Callable[[], Any]):
        self.model, self.guide = model, guide
        self.recorder = Recorder()
        self._estimators = estimators
        self._store = vars(ParamStoreDict())
        self._open = False
        self._due = False  # to be published when the scope is left

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Run programs with these parameters. Nests freely."""
        if self._open:
            yield
            return
        store = pyro.get_param_store()
        outside, others = vars(store).copy(), listening()
        vars(store).update(self._store)  # whole: `set_state` enters parameters one by one, which a small step feels
        self._open = True
        for recorder in others:  # inside the scope of another run, which must not take these parameters for its own
            recorder.listening = False
        try:
            with self.recorder:
                yield
        finally:
            self._open = False
            for recorder in others:
                recorder.listening = True
            store.get_state()  # takes weak references off parameters, which could not be pickled with them
            self._store = vars(store).copy()
            vars(store).update(outside)
            if self._due:
                self.publish()

    def publish(self) -> None:
        """Enter the parameters into Pyro's global store, so that programs run outside see their present values.

        The tensors are shared, and the optimiser moves them in place: the usual step only finds them there. Inside a
        scope Pyro's store is that of a run: it waits until this object's scope is left.
        """
        if self._open or listening():
            self._due = True
            return
        self._due, own, store = False, self._store, pyro.get_param_store()
        shown = store._params
        if all(shown.get(name) is tensor for name, tensor in own["_params"].items()):
            return
        for name, tensor in own["_params"].items():
            if name in shown:
                store._param_to_name.pop(shown[name], None)
            shown[name] = tensor
            store._constraints[name] = own["_constraints"][name]
            store._param_to_name[tensor] = name

    def reclaim(self) -> None:
        """Give PyroModules their tensors back, where programs run outside have put those of another run in their place.

        A PyroModule takes the tensor that Pyro's store has under its name whenever it is read within a program.
        """
        parts = (part for module in self.modules().values() for part in module.modules())
        with self.scope():
            for part in parts:
                if isinstance(part, PyroModule) and part._pyro_context.used:
                    with part._pyro_context:
                        for name in part._pyro_params:
                            getattr(part, name)

    def named(self) -> dict[str, Tensor]:
        """Every parameter met so far, unconstrained, by its name in the program; estimators' as "estimators.…"."""
        own = self._estimators()
        named = own.named_parameters(prefix="estimators") if isinstance(own, nn.Module) else ()
        return {**self.recorder.params, **dict(named)}

    def loose(self) -> dict[str, Tensor]:
        """The parameters that belong to no module of the run, by name: those of `pyro.param`."""
        owned = {id(p) for module in self.modules().values() for p in module.parameters()}
        return {name: p for name, p in self.recorder.params.items() if id(p) not in owned}

    def modules(self) -> dict[str, nn.Module]:
        """The modules whose state belongs to this run: "model", "guide", "estimators", where there are such."""
        candidates = {
            "model": module_of(self.model),
            "guide": module_of(self.guide),
            "estimators": self._estimators(),
        }
        return {name: module for name, module in candidates.items() if isinstance(module, nn.Module)}

    def device(self) -> torch.device:
        """Where the first parameter lives; the CPU before there is one."""
        modules = (p for module in self.modules().values() for p in module.parameters())
        return next((p.device for p in chain(self.recorder.params.values(), modules)), torch.device("cpu"))

    def drop_gradients(self) -> None:
        """Forget what the latest step left behind: sample sites and gradients."""
        self.recorder.forget()
        for parameter in self.named().values():
            parameter.grad = None


def listening() -> list[Recorder]:
    """The recorders of the runs whose scope is open."""
    return [handler for handler in _PYRO_STACK if isinstance(handler, Recorder) and handler.listening]


def module_of(program: Callable) -> Any:
    """The module behind a program: itself, what handlers wrap, or the object whose method it is."""
    program = poutine.unwrap(program)
    return program if isinstance(program, nn.Module) else getattr(program, "__self__", None)
