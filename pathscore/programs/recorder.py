"""Parameters and sample sites of a step: `Recorder()`, the outermost Pyro handler, records them.

Parameters are kept permanently, by name, as the unconstrained tensors that an optimiser updates. Sample sites are kept
for one step, so that a non-finite loss can be traced to its site. Values saved by an earlier run are kept here until
the program asks for the parameter of that name.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import transform_to

from pathscore.errors import UsageError

# Pyro's mark between a module's name and that of its parameter: "model$$$decoder.0.weight".
MODULE_MARK = "$$$"


def plain_name(name: str) -> str:
    """The name as a user reads it: "model.decoder.0.weight"."""
    return name.replace(MODULE_MARK, ".")


class Recorder(Messenger):
    """Records parameters (`params`: name → unconstrained tensor) and, while `watching`, sample messages (`sites`).

    sides: the messages of model and of guide, by name, for programs that were wrapped with `on_side`.
    listening: whether it notes anything; False while the scope of another run is open inside its own.

    Messages hold the tensors of a whole pass, so they are kept only from the start of a step until `forget`. Programs
    that run between steps, in evaluation for example, are not recorded.
    """

    def __init__(self):
        super().__init__()
        self.params: dict[str, Tensor] = {}
        self.sites: list[Any] = []
        self.watching, self.listening = False, True
        self.sides: dict[str, dict[str, Any]] = {"model": {}, "guide": {}}
        self.waiting: dict[str, Tensor] = {}
        self.changes = 0  # of `params`
        self._side: dict[str, Any] | None = None
        self._ids: set[int] = set()

    def forget(self) -> None:
        """Drop the sample sites of the last step, and record no more until the next step begins."""
        self.sites.clear()
        self.watching = False
        for met in self.sides.values():
            met.clear()

    def on_side(self, side: str, program: Callable) -> Callable:
        """The program, with its sample sites recorded as those of the "model" or the "guide" (`sides`)."""

        def noted(*args: Any, **kwargs: Any) -> Any:
            before, self._side = self._side, self.sides[side]
            try:
                return program(*args, **kwargs)
            finally:
                self._side = before

        return noted

    def subsampled(self) -> Iterator[Any]:
        """The messages with which plates draw their indices."""
        return (msg for msg in self.sites if site_is_subsample(msg))

    def sampled(self) -> Iterator[Any]:
        """The messages of sample sites without subsampling, guide first, in the order in which they ran."""
        return (msg for msg in self.sites if not site_is_subsample(msg))

    def _pyro_post_sample(self, msg: Any) -> None:
        if self.watching:
            self.sites.append(msg)
            if self._side is not None and not site_is_subsample(msg):
                self._side[msg["name"]] = msg

    def _pyro_param(self, msg: Any) -> None:
        if self.listening and self.waiting and msg["name"] in self.waiting:
            self._restore(msg, self.waiting.pop(msg["name"]))

    def _pyro_post_param(self, msg: Any) -> None:
        if not self.listening:
            return
        value = msg["value"]
        # With parameters local to modules, Pyro passes a module's parameter without its wrapper.
        tensor = value.unconstrained() if hasattr(value, "unconstrained") else value
        self._refuse_stray(msg, tensor)
        # An initial value that is not yet a parameter does not require a gradient.
        if tensor.requires_grad and id(tensor) not in self._ids:
            name = self._free_name(msg["name"], tensor)
            if name in self.params:
                self._ids.discard(id(self.params[name]))
            self._ids.add(id(tensor))
            self.params[name] = tensor
            self.changes += 1

    def _free_name(self, name: str, tensor: Tensor) -> str:
        count, free = 1, name
        while free in self.params and not _replaces(tensor, self.params[free], name):
            # Two modules may use one name when parameters are local to modules.
            count += 1
            free = f"{name} ({count})"
        return free

    def _restore(self, msg: Any, saved: Tensor) -> None:
        name, initial = msg["name"], msg["args"][1] if len(msg["args"]) > 1 else None
        store = pyro.get_param_store()
        if name not in store and not isinstance(initial, torch.nn.Parameter):
            # Put it into the store before Pyro asks for an initial value: drawing that would consume random numbers.
            value = transform_to(msg["kwargs"]["constraint"])(saved)
            _require_shape(name, value, initial if isinstance(initial, Tensor) else value)
            store.setdefault(name, value, msg["kwargs"]["constraint"])
        target = dict(store.named_parameters())[name] if name in store else initial
        assert isinstance(target, Tensor)
        _require_shape(name, saved, target)
        with torch.no_grad():
            target.copy_(saved)

    @staticmethod
    def _refuse_stray(msg: Any, tensor: Tensor) -> None:
        own = msg["args"][1] if len(msg["args"]) > 1 else None
        if MODULE_MARK in msg["name"] and isinstance(own, torch.nn.Parameter) and own is not tensor:
            raise UsageError(
                f"parameter {plain_name(msg['name'])!r} of the module is not the tensor that Pyro holds, so training "
                "would not update it: make it contiguous, and change it in place (copy_) once training has begun"
            )


def _replaces(new: Tensor, old: Tensor, name: str) -> bool:
    """Whether Pyro has replaced one tensor by another, as it does when a module turns its tensor into a Parameter."""
    store = pyro.get_param_store()
    return new.data_ptr() == old.data_ptr() or (name in store and dict(store.named_parameters())[name] is new)


def _require_shape(name: str, saved: Tensor, target: Tensor) -> None:
    if saved.shape != target.shape:
        raise UsageError(
            f"saved parameter {plain_name(name)!r} has shape {tuple(saved.shape)}, the program's has "
            f"{tuple(target.shape)}: use the program that was saved"
        )
