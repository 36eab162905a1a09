"""The objectives: the table `ELBOS`, `make_elbo(name, …) -> pyro ELBO`, and which are right for which model.

To add an objective, append its `Objective` to `ELBOS` below; the command line's choices, the legality matrix, the
documentation and the contract tests follow from the table.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pyro.infer import ELBO

from pathscore.elbos.entry import MAX_STATES, Objective
from pathscore.elbos.kl_weight import KLWeight, kl_weighted
from pathscore.elbos.stock import STOCK
from pathscore.elbos.weighted import WEIGHTED
from pathscore.errors import UsageError, unknown

__all__ = ["ELBOS", "MAX_STATES", "KLWeight", "Objective", "kl_weighted", "legal", "make_elbo", "refusal", "require"]

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
    **options: Any,
) -> ELBO:
    """The objective `name` with K = `num_particles` particles, for programs with that many nested plates.

    estimators: None for the objective's own gradient; an estimator, its name, "z1=disarm,z2=rloo", or a dictionary
        from sites to either, for a `SiteELBO` that credits costs as the objective does.
    options: further arguments of the objective, e.g. alpha for "vr".

    Raises: UsageError for an unknown name or option, too few particles, or estimators where none can be named.
    """
    entry = objective(name)
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
    return entry.make(num_particles=num_particles, max_plate_nesting=max_plate_nesting, **options)


def refusal(
    elbo: str,
    latent: str,
    layers: Iterable[int] = (16,),
    *,
    classes: int = 10,
    latents: Mapping[str, Any] | None = None,
    **choices: Any,
) -> str | None:
    """Why the objective is wrong for a layered model, in one line with the legal list; None where it is right.

    latent, layers, classes: family, sizes and classes of the layers, as `models.VAE` takes them.
    latents: the table of families; `models.LATENTS` if not given.
    choices: guide, particles, batch_size, kl_weighted, as `Objective.refusal`.
    """
    chosen = _layers(latent, layers, classes, latents)
    why = objective(elbo).refusal(chosen, **choices)
    if why is None:
        return None
    return f"--elbo {elbo} with --latent {latent}: {why} (legal here: {', '.join(_legal(chosen, **choices))})"


def legal(latent: str, layers: Iterable[int] = (16,), **choices: Any) -> list[str]:
    """The objectives that are right for a layered model; arguments as `refusal`."""
    chosen = _layers(latent, layers, choices.pop("classes", 10), choices.pop("latents", None))
    return _legal(chosen, **choices)


def require(elbo: str, latent: str, layers: Iterable[int] = (16,), **choices: Any) -> None:
    """Raise UsageError where `refusal` has a reason."""
    why = refusal(elbo, latent, layers, **choices)
    if why is not None:
        raise UsageError(why)


def _legal(layers: list[Any], **choices: Any) -> list[str]:
    return [name for name, entry in ELBOS.items() if entry.refusal(layers, **choices) is None]


def _layers(latent: str, layers: Iterable[int], classes: int, latents: Mapping[str, Any] | None) -> list[Any]:
    if latents is None:
        from models import LATENTS as latents  # the engine looks the models' tables up only when it runs
    if latent not in latents:
        raise unknown("latent", latent, latents)
    return [latents[latent](size, classes) for size in layers]
