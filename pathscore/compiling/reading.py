"""What a trace does where an objective leaves tensors: `Interception()` is active while `capture` runs an objective.

Pyro's objectives take numbers out of tensors (`.item()`, for the loss they report) and call `backward()`. Neither is an
operation on tensors. Inside, `.item()` gives a `Reading`, a number that goes on living in the graph; `backward()` notes
what it was called on. A program that would do something else with the number, branch on it say, is refused. A branch on
a tensor (`if mask.all():`, Pyro's own checks for NaN) is followed one way, and the way becomes an assumption that every
run of the graph verifies.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from pathscore.programs.places import tensors_in


class Refusal(Exception):
    """Why a program cannot become one graph, in a few words."""


class Reading(numbers.Number):
    """A number read out of a tensor during a trace: arithmetic stays in the graph, in double precision as in Python."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def _combine(self, operation: Callable, other: Any, swapped: bool = False) -> Any:
        if not isinstance(other, int | float | Reading | Tensor):
            return NotImplemented
        theirs = other.tensor if isinstance(other, Reading) else other
        result = operation(theirs, self.tensor) if swapped else operation(self.tensor, theirs)
        return result if isinstance(other, Tensor) else Reading(result)

    def __add__(self, other: Any) -> Any:
        return self._combine(torch.add, other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        return self._combine(torch.mul, other)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> Any:
        return self._combine(torch.sub, other)

    def __rsub__(self, other: Any) -> Any:
        return (-self).__add__(other)

    def __truediv__(self, other: Any) -> Any:
        return self._combine(torch.div, other)

    def __rtruediv__(self, other: Any) -> Any:
        return Reading(self.tensor.reciprocal()).__mul__(other)

    def __neg__(self) -> Reading:
        return Reading(-self.tensor)

    def __ne__(self, other: object) -> bool:
        # x != x asks whether x is NaN, as Pyro does for its warning; a step looks at its loss itself.
        return False if other is self else self._refuse()

    def _refuse(self, *_: Any) -> NoReturn:
        raise Refusal("it takes a number out of a tensor (.item(), float()) and decides by it")

    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __float__ = __int__ = __index__ = _refuse
    __hash__ = None  # type: ignore[assignment]  # unhashable, because == is redefined


LONGEST = 1024
"""The longest row of whole numbers that a loop over it is unrolled for."""

EXPECTED = (Tensor.all, torch.all)
"""What a program asks for to see whether all is well."""


class Interception(TorchFunctionMode):
    """Keeps readings in the graph; notes what `backward()` is called on, and which way branches are assumed to go.

    surrogates: what `backward()` was called on. assumptions: Boolean scalars, all true where the graph is valid.
    took_whole_number: whether `.item()` was asked for one, which later stands in the way of much.
    """

    def __init__(self) -> None:
        super().__init__()
        self.surrogates: list[Tensor] = []
        self.assumptions: list[Tensor] = []
        self.took_whole_number = False
        self._expected: list[Tensor] = []
        self._ranges: list[tuple[Tensor, list[int]]] = []  # whole numbers that no step changes: a plate's indices
        self._before: list[tuple[Tensor, Tensor]] = []

    def put_back(self) -> None:
        """Give tensors back the values they had: a trace does change those that it takes for constants."""
        with torch.no_grad():
            for tensor, value in reversed(self._before):
                tensor.copy_(value)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        self._note_writes(func, args, kwargs)
        if func is Tensor.item and args[0].is_floating_point():
            return Reading(args[0].detach().double())
        self.took_whole_number |= func is Tensor.item
        if func is Tensor.backward:
            return self._backward(*args, **kwargs)
        if func is Tensor.__bool__:
            return self._branch(args[0])
        if func is Tensor.unbind and (known := self._numbers(args[0])) is not None:  # `for index in permutation:`
            return tuple(known)
        if func is Tensor.register_hook:  # hooks would run while the graph is drawn up, and never again
            return None
        if getattr(func, "__name__", "") == "_is_all_true":  # torch asks so for values of its distributions
            func = torch.all
        result = func(*args, **kwargs)
        if func in EXPECTED:
            self._expected.append(result)
        if func is torch.arange and all(isinstance(arg, int) for arg in args) and len(result) <= LONGEST:
            self._ranges.append((result, list(range(*args))))
        return result

    def _note_writes(self, func: Callable, args: tuple, kwargs: dict) -> None:
        """Keep the values of real tensors that an operation in place (add_, __iadd__, out=) is about to change."""
        in_place = getattr(func, "__name__", "").endswith("_") and args
        for own in (*tensors_in(args[0] if in_place else None), *tensors_in(kwargs.get("out"))):
            if not isinstance(own, FakeTensor):
                with _disable_current_modes(), torch.no_grad():
                    self._before.append((own, own.detach().clone()))

    def _numbers(self, tensor: Tensor) -> list[int] | None:
        """The whole numbers of a range, or of a tensor of the program (a permutation): that they stay is assumed."""
        for own, known in self._ranges:
            if own is tensor and own._version == 0:
                return known
        if not _is_row_of_numbers(tensor):
            return None
        with _disable_current_modes():
            known = tensor.tolist()
        self.assumptions.append((tensor == torch.tensor(known, dtype=tensor.dtype, device=tensor.device)).all())
        return known

    def _backward(self, surrogate: Tensor, gradient: Any = None, inputs: Any = None, **_: Any) -> None:
        if gradient is not None or inputs is not None:
            raise Refusal("it calls backward() with a gradient or inputs of its own")
        self.surrogates.append(surrogate)

    def _branch(self, condition: Tensor) -> bool:
        """What programs ask is mostly whether all is well (`.all()`) or something is wrong (NaN, a rare case)."""
        way = any(condition is asked for asked in self._expected)
        truth = condition.detach().reshape(()).bool()
        self.assumptions.append(truth if way else ~truth)
        return way


def _is_row_of_numbers(tensor: Tensor) -> bool:
    """Whether a tensor is a short row of whole numbers that the program holds, and did not compute."""
    whole = tensor.dtype in (torch.int64, torch.int32)
    return whole and tensor.ndim == 1 and len(tensor) <= LONGEST and not isinstance(tensor, FakeTensor)
