"""Pyro's own objectives with K particles in one pass where the program can, else one after another: `adapting(cls)`.

Pyro leaves it to the user to say which, and `vectorize_particles=True` fails, or is silently wrong, on a program that
is not written for it. Here the first call of each kind finds out; a program that broadcasts runs as it always did.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from pyro.infer import ELBO

from pathscore.elbos.structures import kind_of_call
from pathscore.errors import UsageError
from pathscore.programs.broadcasting import REMEDY, obstacle, warn_of_passes
from pathscore.programs.traces import identity

ENTRANCES = ("loss", "loss_and_grads", "differentiable_loss", "compute_grads")
NEEDS_ONE_PASS = ("TailAdaptiveELBO",)
"""Objectives that compare particles with each other inside one trace."""


@cache
def adapting(cls: type[ELBO]) -> type[ELBO]:
    """A class of Pyro's own objective, untouched but for how its particles are run.

    `one_pass`: None finds out for each kind of call, True refuses a program that cannot, False runs them in a loop.
    """
    entrances = {name: _adapted(getattr(cls, name)) for name in ENTRANCES if callable(getattr(cls, name, None))}
    own = {"one_pass": None, "prepare": _prepare, "__module__": cls.__module__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), {**entrances, **own})


def _adapted(method: Callable) -> Callable:
    @wraps(method)
    def adapted(self: Any, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Any:
        if self.num_particles > 1:
            self.vectorize_particles = _in_one_pass(self, model, guide, args, kwargs)
        return method(self, model, guide, *args, **kwargs)

    return adapted


def _prepare(self: Any, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> None:
    """Find out how particles are run, for such calls; consumes no random numbers."""
    if self.num_particles > 1:
        _in_one_pass(self, model, guide, args, kwargs)


def _in_one_pass(elbo: Any, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> bool:
    if elbo.one_pass is False:
        return False
    met = elbo.__dict__.setdefault("_met", {})
    key = (*identity(model), *identity(guide), kind_of_call(args, kwargs))
    if key not in met:
        # Pyro has counted the plate of particles already.
        reason = obstacle(model, guide, args, kwargs, int(elbo.max_plate_nesting) - 1)
        if reason is not None and (elbo.one_pass or type(elbo).__name__ in NEEDS_ONE_PASS):
            raise UsageError(f"{type(elbo).__name__} needs all particles in one pass, and {reason}: {REMEDY}")
        if reason is not None and not any(reason is not None for _, _, reason in met.values()):
            warn_of_passes(reason)
        met[key] = model, guide, reason  # the pair is kept, so that its identity stays its own
    return met[key][2] is None
