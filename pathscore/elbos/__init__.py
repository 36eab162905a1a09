"""The objectives: the table `ELBOS`, `make_elbo(name, …) -> pyro ELBO`, and which are right for which model.

To add an objective, append its `Objective` to `ELBOS` below; the command line's choices, the legality matrix, the
documentation and the contract tests follow from the table.
"""

from collections.abc import Iterable
from typing import Any

from pyro.infer import ELBO

from pathscore.elbos.entry import MAX_STATES, Objective
from pathscore.elbos.kl_weight import KLWeight, kl_weighted
from pathscore.elbos.stock import STOCK
from pathscore.elbos.weighted import WEIGHTED
from pathscore.errors import UsageError, unknown
from pathscore.estimators.calls import read_call

__all__ = ["ELBOS", "MAX_STATES", "KLWeight", "Objective", "as_elbo", "kl_weighted", "legal", "make_elbo", "refusal"]

ELBOS: dict[str, Objective] = {entry.name: entry for entry in (*STOCK, *WEIGHTED)}


def objective(name: str) -> Objective:
    """The entry of that name. Raises: UsageError with the nearest name."""
    if name not in ELBOS:
        raise unknown("elbo", name, ELBOS)
    return ELBOS[name]


def make_elbo(
    name: str,
    estimators: Any = None,
    num_particles: int = 1,
    max_plate_nesting: int = 1,
    vectorize_particles: bool | None = None,
    **options: Any,
) -> ELBO:
    """The objective `name` with K = `num_particles` particles, for programs with that many nested plates.

    estimators: None for the objective's own gradient; an estimator, its name, "z1=disarm,z2=rloo", or a dictionary
        from sites to either, for a `SiteELBO` that credits costs as the objective does.
    vectorize_particles: whether one pass of the programs serves all particles; None: where the program can.
    options: further arguments of the objective, e.g. alpha for "vr".

    Raises: UsageError for an unknown name or option, too few particles, or estimators where none can be named.
    """
    entry = objective(name)
    if not isinstance(num_particles, int) or isinstance(num_particles, bool):
        raise UsageError(f"--particles must be a whole number, got {num_particles!r}")
    if num_particles < entry.min_particles:
        raise UsageError(f"--elbo {name}: {entry.too_few(num_particles)}")
    for option in options:
        if option not in entry.options:
            raise unknown(f"option of {name}", option, entry.options or ["none"])
    if estimators is not None:
        if entry.credit is None:
            able = [other.name for other in ELBOS.values() if other.credit]
            raise UsageError(f"--elbo {name} takes no --estimator: choose from {', '.join(able)}")
        options["estimators"] = estimators
    elbo: Any = entry.make(num_particles=num_particles, max_plate_nesting=max_plate_nesting, **options)
    elbo.one_pass = vectorize_particles
    return elbo


def as_elbo(loss: Any) -> Any:
    """The objective of a word, "trace" or "iwae(num_particles=5)"; anything that can be called is returned as it is.

    Raises: UsageError for an unknown name or option, or anything else.
    """
    if isinstance(loss, str):
        name, options = read_call(loss, "loss")
        return make_elbo(name, **options)
    if not callable(loss):
        raise UsageError(f"loss is a {type(loss).__name__}: give an objective, or its name as in 'trace'")
    return loss


def refusal(elbo: str, layers: Iterable[Any], **choices: Any) -> str | None:
    """Why the objective is wrong for a layered model, in one line with the legal list; None where it is right.

    layers: one member for each latent layer, with `reparameterised` and `states`. choices: guide, particles,
    batch_size, kl_weighted, as `Objective.refusal`.
    """
    layers = list(layers)
    why = objective(elbo).refusal(layers, **choices)
    if why is None:
        return None
    names = legal(layers, **choices)
    return f"{why} (legal here: {', '.join(names)})" if names else why


def legal(layers: Iterable[Any], **choices: Any) -> list[str]:
    """The objectives that are right for a layered model; arguments as `refusal`."""
    layers = list(layers)
    return [name for name, entry in ELBOS.items() if entry.refusal(layers, **choices) is None]
