"""Functions of a pair of programs that take a trained `SVI` too: `@takes_svi`.

evaluate(model, guide, x)      the programs, with the parameters that Pyro's global store shows
evaluate(svi, x)               the same with the parameters of that run
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pyro
from torch import nn

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
            with model.scope():
                return function(model.model, model.guide, *args, **kwargs)
        with warning_of_untrained(function.__name__):
            return function(model, *args, **kwargs)

    return taking  # type: ignore[return-value]  # the same, with one more form of its first arguments


@contextmanager
def warning_of_untrained(name: str) -> Iterator[None]:
    """Warn on leaving, where parameters of `pyro.param` have joined the store."""
    store = pyro.get_param_store()
    before = set(store.keys())
    yield
    made = [key for key, value in store._params.items() if key not in before and not isinstance(value, nn.Parameter)]
    if made:
        warnings.warn(
            f"{name} made {', '.join(map(repr, made[:5]))}, with the first value that the program gives: pass the SVI "
            f"that trained it, as in {name}(svi, …), or call it inside `with svi.scope():`",
            UntrainedWarning,
            stacklevel=3,
        )
