"""Run programs and leave no trace in them: `with untouched(model, guide): …`.

An objective runs programs more often than it takes steps: to lay out a step, to see what depends on what, to compare a
graph with the program. A program may change what it keeps whenever it runs (the running averages of a batch
normalisation, a counter, noise from a generator of Python's). What it keeps is put back here, so that a step is the
first that a program feels.

Left as they are: parameters, flags and whatever is made inside, since the first run of many programs makes their
parts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from pathscore.programs.places import Place, places, tensors_in

UNDECLARED = {
    torch.ops.aten.native_batch_norm.default: (3, 4),
    torch.ops.aten.cudnn_batch_norm.default: (3, 4),
    torch.ops.aten.miopen_batch_norm.default: (3, 4),
}
"""Operations whose schema does not say which arguments they write to."""


@contextmanager
def rehearsal(*programs: Any) -> Iterator[None]:
    """Run programs on draws that are nobody's: torch's random streams and what the programs keep are put back."""
    with torch.random.fork_rng(), untouched(*programs):
        yield


@contextmanager
def untouched(*programs: Any) -> Iterator[None]:
    """Put back what the programs change in tensors, numbers, lists and generators that they held before."""
    with putting_back(*programs) as writes, writes:
        yield


@contextmanager
def putting_back(*programs: Any) -> Iterator[Writes]:
    """As `untouched`, for tensors only what changes while `with writes:` is open inside."""
    found = places(*programs)
    held = [(place, name, v) for place in found for name, v in place.values.items() if _is_put_back(name, v)]
    lists, generators = lists_in(found), generators_in(found)
    writes = Writes(found)
    try:
        yield writes
    finally:
        writes.undo()
        for place, name, value in held:
            if _is_same_kind(place.values.get(name), value):
                place.values[name] = value
        for _, own, members in lists:
            if not any(isinstance(member, nn.Module | nn.Parameter) for member in own):
                own[:] = members
        for generator in generators:
            generator.put_back()


class Writes(TorchDispatchMode):
    """Notes what tensors of these places held before an operation changed them in place; parameters are left out."""

    def __init__(self, found: list[Place]) -> None:
        super().__init__()
        inside = [t for place in found for value in place.values.values() for t in tensors_in(value)]
        # The tensors stay alive, so that no tensor made later has the address of one that the program let go.
        self._kept = {_memory(t): t for t in inside if not (t.requires_grad or isinstance(t, FakeTensor))}
        self._before: dict[Any, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        for tensor in written_by(func, args, kwargs or {}):
            if isinstance(tensor, Tensor) and not isinstance(tensor, FakeTensor):
                self._note(tensor)
        return func(*args, **(kwargs or {}))

    def _note(self, tensor: Tensor) -> None:
        if _memory(tensor) not in self._kept:
            return
        key = _memory(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()
        if key not in self._before:
            self._before[key] = tensor.detach(), tensor.detach().clone()

    def changed(self) -> bool:
        """Whether a tensor now holds something else."""
        return any(not torch.equal(tensor, value) for tensor, value in self._before.values())

    def undo(self) -> None:
        """Give the tensors their values back, the latest change first."""
        with torch.no_grad():
            for tensor, value in reversed(self._before.values()):
                tensor.copy_(value)


def written_by(func: Any, args: tuple, kwargs: dict) -> list[Any]:
    """The arguments that an operation changes in place: tensors, or the nodes of a graph that stand for them."""
    declared = func._schema.arguments
    found = [a for a, d in zip(args, declared, strict=False) if d.alias_info is not None and d.alias_info.is_write]
    found += [kwargs[d.name] for d in declared if d.name in kwargs and d.alias_info and d.alias_info.is_write]
    found += [args[i] for i in UNDECLARED.get(func, ()) if args[i] is not None]
    return [part for value in found for part in (value if isinstance(value, tuple | list) else (value,))]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


def numbers_in(found: list[Place]) -> list[tuple[Place, Any, float]]:
    """The numbers that places hold: place, name and number."""
    return [(place, name, v) for place in found for name, v in place.values.items() if is_number(v)]


def is_number(value: Any) -> bool:
    """Whether a value is a count or a quantity, not a flag."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_parameter(value: Tensor) -> bool:
    """Whether a tensor is one that an optimiser may train."""
    return value.is_leaf and value.requires_grad


def _is_put_back(name: Any, value: Any) -> bool:
    """Numbers and, where it is no cache under a private name, what may be a tensor from step to step."""
    cached = str(name).startswith("_")
    state = value is None or (isinstance(value, Tensor) and not is_parameter(value))
    return is_number(value) or (state and not cached)


def _is_same_kind(now: Any, before: Any) -> bool:
    """Whether a new value stands in the place of another, and is not a part that the program made in its first run."""
    if isinstance(now, Tensor):
        return not is_number(before) and not is_parameter(now)
    return is_number(now) and is_number(before)


def lists_in(found: list[Place]) -> list[tuple[str, list, list]]:
    """The lists that places hold: where, the list, and a copy of it."""
    return [(f"{p.owner}.{name}", v, list(v)) for p in found for name, v in p.values.items() if type(v) is list]


class Generator(NamedTuple):
    """A generator of random numbers, with the state that it had. read, write: its state, in its own way."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]
    state: Any

    @classmethod
    def of(cls, name: str, read: Callable[[], Any], write: Callable[[Any], Any]) -> Generator:
        """The generator as it is now."""
        return cls(name, read, write, read())

    def moved(self) -> bool:
        """Whether numbers were drawn."""
        return repr(self.read()) != repr(self.state)

    def put_back(self) -> None:
        """Give it its state back."""
        self.write(self.state)


def generators_in(found: list[Place]) -> list[Generator]:
    """Python's and numpy's own generators, and those that places hold; torch's default ones are left out."""
    generators = [
        Generator.of("random", random.getstate, random.setstate),
        Generator.of("numpy.random", np.random.get_state, np.random.set_state),
    ]
    for name, value in {id(v): (n, v) for place in found for n, v in place.values.items()}.values():
        if isinstance(value, torch.Generator):
            generators.append(Generator.of(str(name), value.get_state, value.set_state))
        elif isinstance(value, random.Random):
            generators.append(Generator.of(str(name), value.getstate, value.setstate))
        elif isinstance(value, np.random.Generator):
            generators.append(_of_numpy(str(name), value.bit_generator))
    return generators


def _of_numpy(name: str, bits: Any) -> Generator:
    return Generator.of(name, lambda: bits.state, lambda state: setattr(bits, "state", state))
