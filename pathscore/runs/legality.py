"""Whether an objective is right for a program: `refuse(config, …)` before the first step, `why_not` for the tables.

A program declares its latent layers (`Program.layers`), or its guide is run once to find them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite, prod
from typing import Any

from pathscore.config import Config
from pathscore.elbos import ELBOS, refusal
from pathscore.errors import UsageError
from pathscore.estimators.families import support_size
from pathscore.exact.rows import trial


@dataclass(frozen=True)
class Site:
    """The properties of a latent site that the rules of an objective use; `states` is None if it is not finite."""

    reparameterised: bool
    states: int | None


def declared(config: Config) -> Sequence[Any] | None:
    """The latent layers that the program declares; None where it declares none."""
    layers = config.program.layers
    return None if layers is None else layers(config.options)


def found(model: Callable, guide: Callable, args: tuple) -> list[Site]:
    """The latent sites in one run of the guide. It consumes no random numbers."""
    sites, _ = trial(model, guide, args, {})
    return [Site(bool(site["fn"].has_rsample), _states(site["fn"])) for _, site in sites]


def _states(fn: Any) -> int | None:
    states = support_size(fn)
    return int(states) if isfinite(states) and states < inf else None


def refuse(config: Config, layers: Sequence[Any]) -> None:
    """Raise UsageError, which lists the legal objectives, if the objective is wrong for the program."""
    if reason := refusal(config.elbo, layers, **circumstances(config)):
        program = config.program
        what = f" with --{program.by} {getattr(config, program.by)}" if program.by else f" with --model {config.model}"
        raise UsageError(f"--elbo {config.elbo}{what}: {reason}")


def why_not(config: Config) -> str | None:
    """Why the objective of a configuration is wrong for its model; None where it is right, or not known yet."""
    layers = declared(config)
    return None if layers is None else ELBOS[config.elbo].refusal(layers, **circumstances(config))


def circumstances(config: Config) -> dict[str, Any]:
    """The other facts that the rules of `Objective.refusal` use."""
    return {
        # Only a program that declares its layers says how they depend on each other; otherwise the objective checks it.
        "guide": getattr(config, "guide", "") if config.program.layers else "factorised",
        "particles": config.particles,
        "batch_size": config.batch_size,
        "kl_weighted": weighted(config),
    }


def weighted(config: Config) -> bool:
    """Whether the KL terms have a weight other than 1 at some step."""
    return config.kl_weight != 1 or config.kl_warmup > 0


def summed_states(config: Config, layers: Sequence[Any]) -> int:
    """The number of joint states that the objective sums over; 1 where it samples."""
    return prod(layer.states or 1 for layer in layers) if ELBOS[config.elbo].enumerable else 1
