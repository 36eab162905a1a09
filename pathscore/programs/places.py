"""Where programs keep things between their runs: `places(*programs) -> list[Place]`.

A program is a function or a module. What it keeps is in the attributes, buffers and parameters of modules, in
dictionaries, in the attributes of other objects, and in the variables of functions: those that they close over and the
globals that they name. All of it is found by following references from the programs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from pyro.params.param_store import ParamStoreDict
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import Distribution, Transform

MANY = 10_000
"""Things that are looked at: beyond, a program drags in somebody's data structures."""

LONG = 1_000
"""Members of a list or a dictionary that are looked at."""


class Place(NamedTuple):
    """One namespace that a program can reach. owner: what it belongs to, in a word; values: by name, writable."""

    owner: str
    values: MutableMapping[Any, Any]


class Variables(MutableMapping):
    """The variables that a function sees from outside: those of the functions around it, and the globals it names."""

    def __init__(self, function: FunctionType) -> None:
        names = function.__code__.co_freevars
        self._cells = dict(zip(names, function.__closure__ or (), strict=True))
        self._globals = function.__globals__
        self._names = [n for n in function.__code__.co_names if n in self._globals and n not in self._cells]

    def __getitem__(self, name: str) -> Any:
        if name not in self._cells:
            return self._globals[name]
        try:
            return self._cells[name].cell_contents
        except ValueError:  # not assigned yet
            raise KeyError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self._cells:
            self._cells[name].cell_contents = value
        else:
            self._globals[name] = value

    def __delitem__(self, name: str) -> None:
        if name in self._cells:
            del self._cells[name].cell_contents
        else:
            del self._globals[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in (*self._cells, *self._names) if name in self)

    def __contains__(self, name: object) -> bool:
        try:
            self[name]  # type: ignore[index]  # a name that is no string is not there either
        except KeyError:
            return False
        return True

    def __len__(self) -> int:
        return sum(1 for _ in self)


def places(*programs: Any) -> list[Place]:
    """Every place that the programs reach, each once."""
    found: list[Place] = []
    seen: dict[int, Any] = {}  # kept, so that ids stay theirs
    waiting = list(programs)
    while waiting and len(seen) < MANY:
        thing = waiting.pop()
        if id(thing) in seen or not _is_searched(thing):
            continue
        seen[id(thing)] = thing
        own = list(_places_of(thing))
        found += own
        for place in own:
            waiting += list(place.values.values())[:LONG]
        waiting += _members(thing)
    return found


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of a value, or of the tuple or list that it is."""
    parts = value if isinstance(value, tuple | list) else (value,)
    return [part for part in parts if isinstance(part, Tensor)]


def modules_in(found: Iterable[Place]) -> list[nn.Module]:
    """The modules among the values of places."""
    values = {id(v): v for place in found for v in place.values.values() if isinstance(v, nn.Module)}
    return list(values.values())


LIBRARIES = ("torch", "pyro", "numpy", "builtins", "functools", "pathscore")
"""Whose objects are not looked into."""

ATOMS = (Tensor, int, float, complex, str, bytes, type(None), type, ModuleType, ParamStoreDict)


def _is_searched(thing: Any) -> bool:
    """Whether a thing may hold others that a program changes; Pyro's parameter store has owners of its own."""
    return not isinstance(thing, ATOMS)


def _places_of(thing: Any) -> Iterator[Place]:
    if isinstance(thing, nn.Module):
        name = type(thing).__name__
        yield from (Place(name, values) for values in (vars(thing), thing._buffers, thing._parameters))
    elif isinstance(thing, FunctionType):
        yield Place(thing.__name__, Variables(thing))
    elif type(thing) is dict:
        yield Place("dict", thing)
    elif _is_object(thing):
        yield Place(type(thing).__name__, vars(thing))


def _is_object(thing: Any) -> bool:
    """Whether a thing is an object with attributes of a user's own, or a law or a transform."""
    if isinstance(thing, Distribution | Transform):
        return True
    own = isinstance(getattr(thing, "__dict__", None), dict) and not isinstance(thing, MethodType | Messenger)
    return own and type(thing).__module__.partition(".")[0] not in LIBRARIES


def _members(thing: Any) -> list[Any]:
    if isinstance(thing, nn.Module):
        return list(thing._modules.values())
    if isinstance(thing, MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, list | tuple):
        return list(thing[:LONG])
    return []
