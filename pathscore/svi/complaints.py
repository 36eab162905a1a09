"""What torch and Pyro complain of, in one line with the remedy: `explain(problem)`, `of_arguments(problem, args, …)`.

Pyro says on several lines that a site's shape is not that of its plates; torch, that a value is outside a
distribution's support, or that types do not go together, without a word about the argument that brought it.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
from torch import Tensor

from pathscore.errors import PathscoreError, UsageError, in_short

SHAPE_COMPLAINT = re.compile(r'at site "(.*)", invalid log_prob shape\s+Expected \[(.*)\], actual \[(.*)\]')
SUPPORT_COMPLAINT = re.compile(r"within the support \((\w+).*?\) of the distribution (\w+)", re.DOTALL)
PARAMETER_COMPLAINT = re.compile(
    r"Expected parameter (\w+) .*?distribution (\w+)\(.*?to satisfy the constraint (\w+)", re.DOTALL
)
SITE = re.compile(r"at site ['\"](.*?)['\"]")

SUPPORTS = {
    "Boolean": "zeros and ones: binarise them (pathscore.data.binarize), or take another likelihood",
    "IntegerInterval": "whole numbers in its range",
    "IntegerGreaterThan": "whole numbers from 0 upwards: take a likelihood of real numbers for others",
    "GreaterThan": "positive numbers",
    "GreaterThanEq": "numbers of at least 0",
    "Interval": "numbers in its interval: scale them",
    "OneHot": "one-hot vectors: torch.nn.functional.one_hot(labels)",
    "Real": "finite numbers: there are NaN or Inf among the data",
}


def explain(problem: Exception) -> UsageError | None:
    """Pyro's complaint about a shape or a value in one line; None for any other problem."""
    found = SHAPE_COMPLAINT.search(str(problem))
    if found is None:
        return of_support(problem) or of_parameter(problem)
    site, expected, actual = found.groups()
    return UsageError(
        f"site {site!r} has batch shape ({actual}) where its plates declare ({expected}): "
        f"{_remedy(_sizes(expected), _sizes(actual))}"
    )


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",") if size.strip()]


def _remedy(expected: list[int], actual: list[int]) -> str:
    """Which dimensions lack a plate, or belong to the event."""
    for extra in range(1, len(actual) + 1):  # dimensions on the right that no plate declares
        if expected and actual[:-extra] == expected:
            which = f"its last {extra} dimensions" if extra > 1 else f"its last dimension, of size {actual[-1]},"
            return f"make {which} part of one event with .to_event({extra})"
    declared = dict(zip(range(-len(expected), 0), expected, strict=True))
    every = dict(zip(range(-len(actual), 0), actual, strict=True))
    stray = {dim: n for dim, n in every.items() if n not in (1, declared.get(dim, 1))}
    if list(stray) == [-1]:
        plate = f"pyro.plate('data', {actual[-1]})"
        return f"run it inside `with {plate}:`, or make the dimension part of one event with .to_event(1)"
    names = ("data", *(f"data_{i}" for i in range(1, len(stray))))
    plates = ", ".join(f"pyro.plate('{name}', {n}, dim={d})" for name, (d, n) in zip(names, stray.items(), strict=True))
    return f"run it inside `with {plates}:`, or make these dimensions part of one event with .to_event({-min(stray)})"


def of_parameter(problem: Exception) -> UsageError | None:
    """A distribution's parameter outside its range in one line; None for any other problem."""
    found = PARAMETER_COMPLAINT.search(str(problem))
    if found is None:
        return None
    parameter, family, constraint = found.groups()
    what = "NaN" if "nan" in str(problem) else f"values outside {constraint}"
    return UsageError(
        f"a {family} gets {what} as its {parameter}: look for NaN in the data and in the initial parameters, and for a "
        "missing exp() or softplus()"
    )


def of_support(problem: Exception) -> UsageError | None:
    """A value outside a distribution's support in one line; None for any other problem."""
    found = SUPPORT_COMPLAINT.search(str(problem))
    if found is None:
        return None
    support, family = found.groups()
    site = SITE.search(str(problem))
    where = f"site {site[1]!r}: " if site else ""
    return UsageError(f"{where}a {family} takes {SUPPORTS.get(support, f'values in its support, {support}')}")


def of_arguments(problem: Exception, args: tuple, parameters: Iterable[Tensor]) -> UsageError | None:
    """A problem that an argument of the wrong kind or type explains, in one line; None where none does."""
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), None)
    for number, arg in enumerate(args, 1):
        if isinstance(arg, np.ndarray) or (type(arg) is list and isinstance(problem, TypeError | AttributeError)):
            kind = "a numpy array" if isinstance(arg, np.ndarray) else "a list"
            return UsageError(
                f"argument {number} is {kind}: pass a tensor, torch.as_tensor(x, dtype={dtype or 'torch.float32'}) "
                f"({in_short(problem)})"
            )
        if isinstance(arg, Tensor) and dtype is not None and _of_types(problem) and arg.dtype != dtype:
            return UsageError(
                f"argument {number} is {arg.dtype} and the parameters are {dtype}: pass x.to({dtype}) where it holds "
                f"numbers ({in_short(problem)})"
            )
    return None


@contextmanager
def plainly(*args: Any) -> Iterator[None]:
    """Inside, a program's complaint about its arguments or values becomes one line, where one says more."""
    try:
        yield
    except PathscoreError:
        raise
    except (ValueError, TypeError, AttributeError, RuntimeError) as problem:
        better = explain(problem) or of_arguments(problem, args, pyro.get_param_store().values())
        if better is None:
            raise
        raise better from problem


def _of_types(problem: Exception) -> bool:
    return any(
        word in str(problem) for word in ("dtype", "result type", "scalar type", "bool tensor", "expected scalar")
    )
