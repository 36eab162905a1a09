"""What an entry of the table `ELBOS` holds: how to make the objective, and for which programs it is right.

A rule is an attribute that holds the reason for it, empty where the rule does not apply. From these follow the refusals
before a run (`Objective.refusal`, from the choice of model), the refusals at the first step of somebody's own program
(`Objective.program_refusal`, from its sample sites), the legality matrix and the documentation.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

from pyro.infer import ELBO

MAX_STATES = 4096
"""Most joint states of all layers that `enum` sums over: a decoder pass per state and data point."""


@dataclass(frozen=True)
class Objective:
    """One objective.

    name, doc: as in `--elbo` and its help.
    kind: Pyro's class, for recognising it, and what is derived from it, in somebody's own program.
    make: the objective from keyword arguments num_particles, max_plate_nesting, those named in `options`, and
        estimators where sites can name one.
    reparameterised: why every latent site must be a differentiable transform of fixed noise.
    path: why at least one latent site must be such a transform.
    enumerable: why latent sites must have finitely many states.
    mean_field: why no layer of the guide may depend on another.
    joint: why a step may hold one data point only.
    unscaled: why no plate or handler may rescale log-probabilities (subsampling, a weight on the KL term).
    stock_fault: what is wrong with `kind` itself, where `make` gives a class of our own instead.
    particles, min_particles: the usual and the least number of particles.
    credit: how costs are credited to sites that name an estimator: "plate", "graph" (by dependency), "weights" (all
        particles share one cost); None where none can be named.
    signal: what its score-function sites learn from, where that defines the objective; empty where any estimator may
        stand at any site.
    """

    name: str
    doc: str
    kind: type[ELBO]
    make: Callable[..., ELBO]
    reparameterised: str = ""
    path: str = ""
    enumerable: str = ""
    mean_field: str = ""
    joint: str = ""
    unscaled: str = ""
    stock_fault: str = ""
    particles: int = 1
    min_particles: int = 1
    credit: str | None = None
    signal: str = ""
    options: tuple[str, ...] = ()

    @property
    def usual(self) -> str:
        """The estimator of a run that names none: "auto", or "default" for the objective's own gradient."""
        return "auto" if self.credit and not self.signal else "default"

    @property
    def needs(self) -> str:
        """The rules in words, for tables and documentation."""
        rules = {
            "reparameterised latents": self.reparameterised,
            "a reparameterised latent": self.path,
            f"discrete latents, at most {MAX_STATES} joint states": self.enumerable,
            "one layer, or the factorised guide": self.mean_field,
            "--batch-size 1": self.joint,
            "no --kl-weight, no subsampling": self.unscaled,
            f"--particles of at least {self.min_particles}": self.min_particles > 1,
        }
        return "; ".join(rule for rule, needed in rules.items() if needed) or "nothing"

    def refusal(
        self,
        layers: Iterable[Any],
        *,
        guide: str = "amortized",
        particles: int | None = None,
        batch_size: int | None = None,
        kl_weighted: bool = False,
    ) -> str | None:
        """Why not for a layered model, with the remedy; None where it is right.

        layers: one entry of `LATENTS` per layer, with attributes `reparameterised` and `states` (None if infinitely
        many). particles, batch_size: None leaves out the rules about them.
        """
        layers = list(layers)
        states = prod(layer.states or 0 for layer in layers)
        stacked = len(layers) > 1 and guide != "factorised"
        rules = (
            (not all(layer.reparameterised for layer in layers), self.reparameterised),
            (not any(layer.reparameterised for layer in layers), self.path),
            (states == 0, self.enumerable),
            (states > MAX_STATES, self.enumerable and f"{states} joint states, more than {MAX_STATES}: fewer --layers"),
            (stacked, self.mean_field and f"{self.mean_field}: use one layer or --guide factorised"),
            (batch_size not in (None, 1), self.joint and f"{self.joint}: use --batch-size 1"),
            (kl_weighted, self.unscaled and f"{self.unscaled}: leave out --kl-weight and --kl-warmup"),
            (particles is not None and particles < self.min_particles, self.too_few(particles)),
        )
        return next((why for broken, why in rules if broken and why), None)

    def too_few(self, particles: int | None) -> str:
        """The reason to refuse a number of particles below the least."""
        return f"it needs --particles of at least {self.min_particles}, got {particles}"

    def program_refusal(self, sites: Iterable[Any]) -> str | None:
        """Why not for a program that left these sample messages; None where no rule is broken."""
        for msg in sites:
            rules = (
                (not msg["is_observed"] and not msg["fn"].has_rsample, "not reparameterised", self.reparameterised),
                (not _is_one(msg["scale"]), "rescaled, by a subsampled plate or poutine.scale", self.unscaled),
                (any(map(_is_data_plate, msg["cond_indep_stack"])), "in a plate of several data", self.joint),
            )
            for broken, what, why in rules:
                if broken and why:
                    return f"site {msg['name']!r} is {what}: {why}"
        return None


def _is_one(scale: Any) -> bool:
    return bool((scale == 1.0).all()) if hasattr(scale, "all") else scale == 1.0


def _is_data_plate(frame: Any) -> bool:
    return frame.vectorized and frame.size > 1 and not frame.name.startswith("num_particles")
