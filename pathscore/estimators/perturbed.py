"""A drawn weight that gives each data point a perturbation of its own: `Perturbed`, and the `Rule` that it follows.

Data points that share one draw of a weight share its noise, so their gradients are correlated and a larger batch hardly
helps. A `Perturbed` is the shared draw W, a tensor like any other, that also knows its mean. Where the program takes it
to a linear layer or a convolution, with one data point in each row of the input, its rule gives each row noise of its
own. The program is not edited: torch hands the call to the weight that takes part in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from pyro.poutine import runtime
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.nn import functional as F

from pathscore.errors import UsageError

Product = Callable[[Tensor, Tensor], Tensor]
"""(input, weight) → output without a bias: a linear layer or a convolution."""


class Rule(ABC):
    """How the rows of an input get noise of their own, within one draw of a weight.

    word: the estimator's name. variance: of the weight's elements, in the shape of the weight. outputs: what the calls
    of the draw returned, where they are recorded.
    """

    word: str

    def __init__(self, variance: Tensor) -> None:
        self.variance = variance
        self.outputs: list[Tensor] | None = None

    @abstractmethod
    def product(self, product: Product, x: Tensor, weight: Perturbed) -> Tensor:
        """The output of a layer for input x, one data point in each row."""

    @abstractmethod
    def shift(self, like: Tensor, bias: Perturbed) -> Tensor:
        """What is added to the output `like` of a layer for a bias, (rows, channels, 1, …)."""

    def recorded(self, output: Tensor) -> Tensor:
        """The output, kept where a check asks for it."""
        if self.outputs is not None:
            self.outputs.append(output)
        return output


class Perturbed(Tensor):
    """A draw of a weight, with its mean `loc` and the rule by which rows differ. Raises UsageError for other uses."""

    loc: Tensor
    rule: Rule

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in LAYERS:
            return LAYERS[func](*args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            if func in SHAPES and isinstance(args[0], Perturbed):
                weight = args[0]
                return perturbed(func(*args, **kwargs), func(weight.loc, *args[1:], **kwargs), weight.rule)
            out = func(*args, **kwargs)
        if _in_program() and isinstance(out, Tensor) and out.requires_grad and func not in READS:
            raise UsageError(_misuse(func, args))
        return out


def perturbed(value: Tensor, loc: Tensor, rule: Rule) -> Tensor:
    """The value as a weight whose rows differ. Raises UsageError while a step is captured as a graph."""
    if isinstance(value, FakeTensor):  # it cannot become another class
        raise UsageError(f"{rule.word} hands each row noise of its own in calls that a graph does not record")
    found = value.as_subclass(Perturbed)
    found.loc, found.rule = loc, rule
    return found


def plain(value: Tensor) -> Tensor:
    """The value as the shared draw that it is."""
    return value.as_subclass(Tensor)


def _in_program() -> bool:
    """Whether a program is run, whose sites are traced: densities are computed afterwards, from the shared draw."""
    return any(isinstance(handler, TraceMessenger) and not handler.param_only for handler in runtime._PYRO_STACK)


def _misuse(func: Any, args: tuple) -> str:
    word = next(a.rule.word for a in args if isinstance(a, Perturbed))
    name = getattr(func, "__name__", str(func)).strip("_")
    return (
        f"{word} serves a weight that the program takes to a linear layer, a 2-D convolution or a matrix product, and "
        f"here it goes into {name}: use pathwise at this site"
    )


def _layer(make: Callable[..., Product]) -> Callable[..., Tensor]:
    """A torch function of (input, weight, bias, …) that follows the rules of perturbed weights and biases."""

    def call(input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        product = make(*args, **kwargs)
        if isinstance(input, Perturbed):
            raise UsageError(_misuse(make, (input,)))
        if isinstance(weight, Perturbed):
            out = weight.rule.recorded(weight.rule.product(product, input, weight))
        else:
            out = product(input, weight)
        if bias is None:
            return out
        if isinstance(bias, Perturbed):
            return bias.rule.recorded(out + bias.rule.shift(out, bias))
        return out + channels(bias, out)

    return call


def channels(t: Tensor, like: Tensor) -> Tensor:
    """A number for each output, or for each row and output, made to broadcast over a layer's output `like`."""
    return t.reshape(*t.shape, *(1,) * (like.dim() - 2)) if like.dim() == 4 else t


def _linear() -> Product:
    return lambda x, w: F.linear(x, w)


def _conv2d(*args: Any, **kwargs: Any) -> Product:
    return lambda x, w: F.conv2d(x, w, None, *args, **kwargs)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """x W, x w, W xᵀ and w xᵀ for a matrix x with a data point in each row: a linear layer."""
    if isinstance(a, Perturbed) == isinstance(b, Perturbed):
        raise UsageError(_misuse(torch.matmul, (a, b)))
    if isinstance(a, Perturbed):
        out = _matmul(b.mT, a.mT if a.dim() == 2 else a) if b.dim() == 2 else _refuse(a, b)
        return out.mT if out.dim() == 2 else out
    if a.dim() != 2 or b.dim() > 2:
        return _refuse(a, b)
    linear = _layer(_linear)
    return linear(a, b.mT) if b.dim() == 2 else linear(a, b.unsqueeze(0)).squeeze(-1)


def _refuse(*args: Tensor) -> Tensor:
    raise UsageError(_misuse(torch.matmul, args))


LAYERS: dict[Any, Callable[..., Tensor]] = {
    F.linear: _layer(_linear),
    F.conv2d: _layer(_conv2d),
    torch.matmul: _matmul,
    torch.mm: _matmul,
    Tensor.matmul: _matmul,
    Tensor.mm: _matmul,
    Tensor.__matmul__: _matmul,
    Tensor.__rmatmul__: lambda weight, x: _matmul(x, weight),
}
"""Functions in which the rows of the input get noise of their own."""

SHAPES = {
    *(Tensor.reshape, Tensor.view, Tensor.expand, Tensor.squeeze, Tensor.unsqueeze, Tensor.contiguous),
    *(Tensor.t, Tensor.transpose, Tensor.T.__get__, Tensor.mT.__get__, torch.t, torch.transpose, torch.reshape),  # type: ignore[attr-defined]  # getters of properties
    *(Tensor.to, Tensor.float, Tensor.double),
}
"""Functions that keep what a perturbed weight is."""

READS = {Tensor.requires_grad.__get__, Tensor.grad_fn.__get__, Tensor.clone}  # type: ignore[attr-defined]  # getters of properties
"""Functions whose result may be the weight itself without being a use of it."""
