"""Which latent sites each site of a run depends on: `Watch(names)` marks their values and follows the marks.

    watch = Watch({"z"}); guide = watch.guide(guide); model = watch.model(model); …; watch.seen["p", "x"]

A mark follows a value through every operation on tensors. Where a value leaves the tensors (`if z:`, `.item()`, numpy,
a write into another tensor), nothing shows what it decides: each later site then counts as depending on it, whatever
branch is taken. A draw hands on the marks of its law. Only the program sees marked tensors; handlers and traces do not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from pyro.ops.provenance import ProvenanceTensor
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch._C import DisableTorchFunctionSubclass
from torch.distributions import Distribution, Transform

Marks = frozenset[str]
NONE: Marks = frozenset()

# fmt: off
METADATA = frozenset({
    "__get__", "__set__", "dim", "ndimension", "size", "numel", "nelement", "stride", "storage_offset",
    "element_size", "is_floating_point", "is_complex", "is_signed", "is_contiguous", "is_pinned", "is_inference",
    "is_shared", "is_same_size", "get_device", "type", "__len__", "__hash__", "__repr__", "__format__",
    "requires_grad_", "retain_grad", "register_hook", "backward", "result_type", "broadcast_shapes",
})
# fmt: on
"""Functions of a tensor whose result is no tensor and does not depend on its values."""

SHAPED = frozenset(
    {
        "nonzero",
        "argwhere",
        "masked_select",
        "unique",
        "unique_consecutive",
        "bincount",
        "repeat_interleave",
        "__getitem__",
    }
)
"""Functions whose result may have a shape that depends on values."""

OWN = (__name__, "torch._tensor", "torch.overrides", "torch.functional")
LIBRARIES = ("torch.distributions", "pyro.")
"""Their checks of parameters and values read numbers; what a law depends on is read off the law itself."""


class Marked(Tensor):
    """A tensor of a watched program. marks: the sites that it depends on; lost: those whose value has left tensors."""

    marks: Marks
    lost: set[str]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with DisableTorchFunctionSubclass():
            out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in METADATA and not isinstance(out, Tensor):
            return out
        found = list(_marked((*args, *kwargs.values()) if kwargs else args))
        marks, lost = NONE.union(*(t.marks for t in found)), found[0].lost
        if name in SHAPED and _shape_of_values(name, args):
            lost |= marks
        given = [*args, *kwargs.values()] if kwargs else args
        return _hand_on(out, marks, lost, given)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A program that keeps a value saves it as a plain tensor."""
        with DisableTorchFunctionSubclass():
            return self.as_subclass(Tensor).__reduce_ex__(protocol)


def _hand_on(out: Any, marks: Marks, lost: set[str], given: Any) -> Any:
    """Mark what an operation returns; what is no new tensor shows nothing of what depends on it from here."""
    new: Any = out
    if isinstance(out, tuple | list) and out and isinstance(out[0], Tensor):
        for part in out:
            _hand_on(part, marks, lost, given)
    elif type(out) is Tensor and not any(out is other for other in given):
        new.__class__ = Marked
        new.marks, new.lost = marks, lost
    elif isinstance(out, Marked):  # changed in place
        out.marks = out.marks | marks
    elif not _checked_by_library():
        lost |= marks
    return out


def _checked_by_library() -> bool:
    """Whether it is a library that asked for the number: `if not valid.all()`."""
    frame: Any = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(OWN):
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__", "").startswith(LIBRARIES)


def _shape_of_values(name: str, args: Any) -> bool:
    if name != "__getitem__":
        return True
    index = args[1] if isinstance(args[1], tuple) else args[1:]
    return any(isinstance(part, Marked) and part.dtype is torch.bool for part in index)


def _marked(parts: Any) -> Iterator[Marked]:
    """The marked tensors among arguments, in lists and dictionaries too."""
    for part in parts:
        if isinstance(part, Marked):
            yield part
        elif isinstance(part, tuple | list):
            yield from _marked(part)
        elif isinstance(part, dict):
            yield from _marked(part.values())


def marked(value: Any, marks: Marks, lost: set[str]) -> Any:
    """The value as its program sees it; what is no tensor stays as it is."""
    if not marks or not isinstance(value, Tensor):
        return value
    own = value.as_subclass(Marked)
    own.marks, own.lost = marks, lost
    return own


def plain(part: Any, marks: set[str]) -> Any:
    """A law, a value or a mask without marks, which are added to `marks`; what has none is returned as it is."""
    if isinstance(part, Marked):
        marks |= part.marks
        with DisableTorchFunctionSubclass():
            return part.as_subclass(Tensor)
    if isinstance(part, ProvenanceTensor):  # Pyro's marks
        marks |= part._provenance
        return part._t
    if isinstance(part, tuple | list) and type(part) in (tuple, list):
        return _if_changed(part, type(part)(plain(each, marks) for each in part))
    if isinstance(part, dict):
        new = {key: plain(each, marks) for key, each in part.items()}
        return new if any(new[key] is not part[key] for key in part) else part
    if isinstance(part, partial):
        new = plain([part.func, part.args, part.keywords], marks)
        return (
            part
            if all(a is b for a, b in zip(new, (part.func, part.args, part.keywords), strict=True))
            else (partial(new[0], *new[1], **new[2]))
        )
    if isinstance(part, Distribution | Transform):
        return _plain_object(part, marks)
    return part


def _if_changed(old: Any, new: Any) -> Any:
    return new if any(a is not b for a, b in zip(old, new, strict=True)) else old


def _plain_object(part: Any, marks: set[str]) -> Any:
    held = {key: each for key, each in vars(part).items() if not isinstance(each, torch.nn.Module)}
    new = {key: plain(each, marks) for key, each in held.items()}
    if all(new[key] is held[key] for key in held):
        return part
    copied = object.__new__(type(part))
    copied.__dict__.update(vars(part), **new)
    if isinstance(part, Transform):
        copied._inv = None  # the inverse of the marked one
    return copied


def capturing() -> bool:
    """Whether operations are being recorded into a graph: it keeps the branches that were taken, and is not watched."""
    return torch._C._len_torch_dispatch_stack() > 0


class Watch:
    """The dependences of one or more runs of a guide and a model, in this order.

    names: the sites whose values are marked. seen: ("q", site) and ("p", site) → the sites that its log-probability
    depends on; ("prior", site) → those that the model's law does. lost: the sites whose value has left tensors.
    """

    def __init__(self, names: Any) -> None:
        self.names = frozenset(names)
        self.seen: dict[tuple[str, str], Marks] = {}
        self.lost: set[str] = set()
        self.drawn: dict[str, Marks] = {}

    def guide(self, program: Callable) -> Any:
        """The guide, watched."""
        return _Side(self, "q")(program)

    def model(self, program: Callable) -> Any:
        """The model, watched, in a run that is given the guide's draws."""
        return _Side(self, "p")(program)

    def add(self, kind: str, name: str, marks: set[str]) -> Marks:
        """Note the marks of a term, with those of sites whose value may decide about anything."""
        found = frozenset(marks | self.lost)
        self.seen[kind, name] = self.seen.get((kind, name), NONE) | found
        return found


class _Side(Messenger):
    """The innermost handler of one of the programs."""

    def __init__(self, watch: Watch, kind: str) -> None:
        super().__init__()
        self.watch, self.kind = watch, kind
        self.values: dict[str, Marks] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample):
            return
        name, watch = msg["name"], self.watch
        law: set[str] = set()
        msg["fn"] = plain(msg["fn"], law)
        value: set[str] = set()
        msg["value"] = plain(msg["value"], value)
        others: set[str] = set()
        for key in ("args", "kwargs", "mask", "scale"):
            msg[key] = plain(msg[key], others)
        if msg["is_observed"]:
            self.values[name] = frozenset(value)
        elif self.kind == "q":
            watch.drawn[name] = frozenset(law | watch.lost | ({name} & watch.names))
        watch.add(self.kind, name, law | others | value | self._of_value(msg))
        if self.kind == "p":
            watch.add("prior", name, law)

    def _pyro_post_sample(self, msg: Any) -> None:
        if not isinstance(msg["fn"], _Subsample):
            msg["value"] = marked(msg["value"], self._of_value(msg), self.watch.lost)

    def _of_value(self, msg: Any) -> Marks:
        """What the value of a site depends on."""
        return (self.values if msg["is_observed"] else self.watch.drawn).get(msg["name"], NONE)
