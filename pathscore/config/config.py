"""The configuration of a run: every choice, its default and its meaning, in one place.

`Config` is flat; its parents group the fields for the help text. A field whose default is None and whose word is
"auto" is settled by `Config.for_data(width)` from `SIZES`, once the data are known. `to_json`/`from_json` and
`from_toml` keep it in files; unknown keys and values are refused by name. Nothing here imports torch.
"""

import dataclasses
import json
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pathscore.config.options import FILLED, FRACTION, NOT_NEGATIVE, POSITIVE, Check, between, option, options_of
from pathscore.errors import UsageError, unknown

WIDTH = between(1, 65_536)
DEVICES = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
DEVICE = Check("must be auto, cpu, mps, cuda or cuda:N", lambda value: DEVICES.fullmatch(value) is not None)
NOT_ONE = Check("must be finite and not 1", lambda value: abs(value) < math.inf and value != 1)


def named(text: str) -> list[str]:
    """The estimators that a word names: "z1=disarm,z2=gumbel(temperature=0.3)" → disarm, gumbel."""
    parts = re.split(r",(?![^()]*\))", text)  # commas outside parentheses
    return [part.split("(")[0].split("=")[-1].strip() for part in parts]


@dataclasses.dataclass(frozen=True)
class Program:
    """The programs: model p(x, z) and guide q(z | x)"""

    model: str = option("vae", "kind of model", choices="model")
    latent: str = option("normal", "family of every latent layer", choices="latent")
    layers: tuple[int, ...] | None = option(None, "latent units per layer, next to x first", check=WIDTH, none="auto")
    classes: int = option(10, "classes of each categorical latent", check=between(2, 65_536))
    likelihood: str = option("bernoulli", "p(x | z)", choices="likelihood")
    prior: str = option("fixed", "prior of the top layer", choices="prior")
    guide: str = option("amortised", "what each layer of q is conditioned on", choices="guide")
    trunk: str = option("mlp", "network between layers", choices="trunk")
    hidden: tuple[int, ...] | None = option(None, "hidden widths of a trunk", check=WIDTH, none="auto")
    activation: str = option("tanh", "between hidden layers", choices="activation")


@dataclasses.dataclass(frozen=True)
class Objective:
    """The objective and its gradient"""

    elbo: str = option("trace", "bound, and how costs are credited to sites", choices="elbo")
    estimator: str | None = option(None, "how the gradient passes each sample site", choices="estimator", names=named)
    particles: int | None = option(None, "draws of z per data point", check=between(1, 10**6), none="auto")
    alpha: float = option(0.0, "order of the Rényi bound (0: importance-weighted)", check=NOT_ONE)
    fill: str = option("geometric", "weight that stands in for a particle in vimco's signal", choices="fill")
    insomnia: float = option(1.0, "share of the wake phase in the guide's gradient", check=between(0, 1))
    kl: str = option("sampled", "KL terms under trace and tracegraph", choices="kl")
    free_bits: float = option(0.0, "nats of each layer's KL term that cost nothing", check=NOT_NEGATIVE)
    kl_weight: float = option(1.0, "weight of the latent terms", check=NOT_NEGATIVE)
    kl_warmup: float = option(0.0, "epochs over which the weight rises from 0", check=NOT_NEGATIVE)
    track_variance: str | None = option(
        None, "estimators whose gradient variance is logged after each epoch", choices="estimator", names=named
    )


@dataclasses.dataclass(frozen=True)
class Data:
    """The data"""

    dataset: str = option("digits", "named data set", choices="dataset")
    data: str | None = option(None, "own data instead: FILE.npz with x and, if split already, x_test", check=FILLED)
    data_dir: str = option("data", "folder of downloaded sets", check=FILLED)
    binarize: str | None = option(None, "how grey values become 0 and 1", choices="binarize", none="auto")


@dataclasses.dataclass(frozen=True)
class Optimisation:
    """Optimisation"""

    epochs: int | None = option(None, "passes over the training set", check=between(1, 10**9), none="auto")
    steps: int | None = option(None, "optimiser steps, instead of --epochs", check=between(1, 10**12))
    batch_size: int | None = option(None, "data points per step", check=between(1, 10**7), none="auto")
    optimizer: str = option("adam", "update rule", choices="optimizer")
    lr: float = option(1e-3, "learning rate", check=POSITIVE)
    estimator_lr: float | None = option(
        None, "learning rate of an estimator's own parameters (none: --lr)", check=POSITIVE
    )
    betas: tuple[float, ...] = option((0.9, 0.999), "Adam's two decay rates", check=FRACTION)
    eps: float = option(1e-8, "Adam's ε", check=POSITIVE)
    weight_decay: float = option(0.0, "decoupled decay for adamw, L2 otherwise", check=NOT_NEGATIVE)
    momentum: float = option(0.0, "momentum of sgd", check=FRACTION)
    schedule: str = option("constant", "learning rate over the run", choices="schedule")
    warmup: int = option(0, "steps over which the learning rate rises from 0", check=between(0, 10**9))
    clip: float | None = option(None, "largest global norm of the gradient", check=POSITIVE)


@dataclasses.dataclass(frozen=True)
class Machine:
    """The machine and the evaluation"""

    seed: int = option(0, "of initial weights, order, noise and draws", check=between(0, 2**63 - 1))
    device: str = option("cpu", "auto, cpu, mps, cuda or cuda:N", check=DEVICE)
    dtype: str = option("float32", "of parameters and data", choices="dtype")
    threads: int | None = option(None, "threads of tensor work", check=between(1, 1024), none="auto")
    compile: str = option("auto", "run steps as one compiled graph; auto: from 10 000 steps, on cpu", choices="compile")
    matmul_precision: str = option(
        "highest", "of float32 matrix products in training; medium: bfloat16", choices="matmul_precision"
    )
    eval_samples: int | None = option(None, "draws per point of log p(x)", check=between(1, 10**7), none="auto")


GROUPS = (Program, Objective, Data, Optimisation, Machine)

# What "auto" means, for pictures of up to 256 values and for larger ones.
SMALL_WIDTH = 256
SIZES: dict[bool, dict[str, Any]] = {
    True: {"layers": (16,), "hidden": (128,), "batch_size": 64, "epochs": 60, "eval_samples": 1000},
    False: {"layers": (50,), "hidden": (400,), "batch_size": 256, "epochs": 20, "eval_samples": 100},
}
CHANNELS = {True: (16, 32), False: (32, 64)}  # "hidden" of the trunk conv


@dataclasses.dataclass(frozen=True)
class Config(Machine, Optimisation, Data, Objective, Program):
    """Every choice of a run. `Config()` holds the defaults; `validate` refuses what no run could use."""

    def validate(self) -> "Config":
        """Self, or UsageError in one line for the first value out of its choices or range."""
        for name, item in OPTIONS.items():
            item.require(getattr(self, name))
        if len(self.betas) != 2:
            raise UsageError(f"--betas takes two numbers, as in 0.9,0.999, got {OPTIONS['betas'].show(self.betas)}")
        if self.steps is not None and self.epochs is not None:
            raise UsageError("--steps and --epochs both say how long to train: give one of them")
        return self

    def for_data(self, width: int, binarize: str) -> "Config":
        """A copy with every "auto" settled, for data of `width` values; `binarize` is what the data call for."""
        sizes = {**SIZES[width <= SMALL_WIDTH], "binarize": binarize}
        sizes["hidden"] = {"linear": None, "conv": CHANNELS[width <= SMALL_WIDTH]}.get(self.trunk, sizes["hidden"])
        if self.steps is not None:
            del sizes["epochs"]
        return dataclasses.replace(self, **{k: v for k, v in sizes.items() if getattr(self, k) is None})

    def to_json(self) -> str:
        """The configuration as JSON, one key a line; `from_json` reads it back equal."""
        return json.dumps({name: getattr(self, name) for name in OPTIONS}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "configuration") -> "Config":
        """A validated configuration from plain values; keys may use "-" or "_"; `where` is named in errors."""
        accepted = {}
        for key, value in values.items():
            name = key.replace("-", "_")
            if name not in OPTIONS:
                raise UsageError(f"{where}: {unknown('key', key, OPTIONS)}")
            try:
                accepted[name] = OPTIONS[name].accept(value)
            except UsageError as error:
                raise UsageError(f"{where}: {error}") from None
        return cls(**accepted).validate()

    @classmethod
    def from_json(cls, text: str, where: str = "config.json") -> "Config":
        """Inverse of `to_json`; UsageError when the text is no JSON object or a key is unknown."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UsageError(f"{where} is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise UsageError(f"{where} must hold one JSON object")
        return cls.from_dict(values, where)

    @classmethod
    def from_toml(cls, path: str | Path) -> "Config":
        """A preset file: keys as flags without dashes; tables (`[data]`) may group them and mean nothing more."""
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"--config {path}: {error.strerror or error}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"--config {path} is not TOML: {error}") from None
        flat: dict[str, Any] = {}
        for key, value in values.items():
            flat.update(value if isinstance(value, dict) else {key: value})
        return cls.from_dict(flat, f"--config {path}")


FREE = ("epochs", "steps", "threads", "device", "compile", "data_dir", "eval_samples", "track_variance")
"""What a resumed run may change: how long and where it goes on, not what it is."""

OPTIONS = {name: item for group in GROUPS for name, item in options_of(group).items()}
