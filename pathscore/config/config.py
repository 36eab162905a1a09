"""The configuration of a run: every choice, its default and its meaning, in one place.

`Config(model="vae", …)` is flat; its parents group the fields for the help text, and the program that `model` names
adds a group of its own. A field whose default is None and whose word is "auto" is settled once the data are known, by
the program and by `Config.settled(width)` from `SIZES`. `to_json`/`from_json` and `from_toml` keep it in files; unknown
keys and values are refused by name. Nothing here imports torch.
"""

import dataclasses
import json
import math
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pathscore.config.options import (
    FILLED,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    Check,
    Option,
    between,
    option,
    options_of,
    shown,
)
from pathscore.errors import UsageError, unknown
from pathscore.programs.entry import Program
from pathscore.programs.lookup import find, is_file, names_of_programs

SITES = "|SITE=NAME,…"
DEVICES = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
DEVICE = Check("must be auto, cpu, mps, cuda or cuda:N", lambda value: DEVICES.fullmatch(value) is not None)
NOT_ONE = Check("must be finite and not 1", lambda value: abs(value) < math.inf and value != 1)


def named(text: str) -> list[str]:
    """The estimators that a word names: "z1=disarm,z2=gumbel(temperature=0.3)" → disarm, gumbel."""
    parts = re.split(r",(?![^()]*\))", text)  # commas outside parentheses
    return [part.split("(")[0].split("=")[-1].strip() for part in parts]


@dataclasses.dataclass(frozen=True)
class Kind:
    """The kind of program: model p(x, z) and guide q(z | x)"""

    model: str = option(
        "vae",
        "kind of program; FILE.py:NAME for one of your own",
        choices=names_of_programs,
        names=lambda word: [] if is_file(word) else [word],
        form="|FILE.py:NAME",
        check=FILLED,
    )


@dataclasses.dataclass(frozen=True)
class Objective:
    """The objective and its gradient"""

    elbo: str = option("trace", "bound, and how costs are credited to sites", choices="elbo")
    estimator: str | None = option(
        None, "how the gradient passes each sample site", choices="estimator", names=named, form=SITES
    )
    particles: int | None = option(None, "draws of z per data point", check=between(1, 10**6), none="auto")
    alpha: float = option(0.0, "order of the Rényi bound (0: importance-weighted)", check=NOT_ONE)
    fill: str = option("geometric", "weight that stands in for a particle in vimco's signal", choices="fill")
    insomnia: float = option(1.0, "share of the wake phase in the guide's gradient", check=between(0, 1))
    kl: str = option("sampled", "KL terms under trace and tracegraph", choices="kl")
    free_bits: float = option(0.0, "nats of each layer's KL term that cost nothing", check=NOT_NEGATIVE)
    kl_weight: float = option(1.0, "weight of the latent terms", check=NOT_NEGATIVE)
    kl_warmup: float = option(0.0, "epochs over which the weight rises from 0", check=NOT_NEGATIVE)
    track_variance: str | None = option(
        None,
        "estimators whose gradient variance is logged after each epoch",
        choices="estimator",
        names=named,
        form=SITES,
    )


@dataclasses.dataclass(frozen=True)
class Data:
    """The data"""

    dataset: str | None = option(None, "named data set", choices="dataset", none="auto")
    data: str | None = option(
        None, "own data instead: FILE.npz with x, x_test if split already, y and y_test for labels", check=FILLED
    )
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
    compile: str = option(
        "auto", "run steps as one compiled graph; auto: from 10 000 steps, 5 000 on cuda", choices="compile"
    )
    matmul_precision: str = option(
        "highest", "of float32 matrix products in training; medium: bfloat16", choices="matmul_precision"
    )
    eval_samples: int | None = option(None, "draws per point of log p(x)", check=between(1, 10**7), none="auto")


GROUPS = (Kind, Objective, Data, Optimisation, Machine)
"""The groups that every run has; those of a program come second."""

# What "auto" means, for rows of up to 256 values and for larger ones.
SMALL_WIDTH = 256
SIZES: dict[bool, dict[str, Any]] = {
    True: {"batch_size": 64, "epochs": 60, "eval_samples": 1000},
    False: {"batch_size": 256, "epochs": 20, "eval_samples": 100},
}


@dataclasses.dataclass(frozen=True)
class Config(Machine, Optimisation, Data, Objective, Kind):
    """Every choice of a run. `Config()` holds the defaults; `validate` refuses what no run could use.

    `Config(model=…, latent=…, …)` takes the options of its program as well: it makes an instance of the subclass that
    has them, one for each program.
    """

    def __new__(cls, **values: Any) -> "Config":
        """Instances belong to the subclass with the options of the program that they name."""
        made: type = cls
        if cls is Config:
            made = config_class(find(values.get("model", DEFAULTS["model"])).options)
        return object.__new__(made)

    @property
    def program(self) -> Program:
        """The program that `model` names."""
        return find(self.model)

    @property
    def options(self) -> Any:
        """The options of the program, an instance of its own dataclass."""
        cls = self.program.options
        return cls(**{name: getattr(self, name) for name in options_of(cls)})

    def validate(self) -> "Config":
        """Self, or UsageError in one line for the first value out of its choices or range."""
        for name, item in options_of(type(self)).items():
            item.require(getattr(self, name))
        if len(self.betas) != 2:
            raise UsageError(f"--betas takes two numbers, as in 0.9,0.999, got {shown(self.betas)}")
        if self.steps is not None and self.epochs is not None:
            raise UsageError("--steps and --epochs both say how long to train: give one of them")
        return self

    def settled(self, width: int, program: Mapping[str, Any]) -> "Config":
        """A copy with each "auto" settled that rows of `width` values settle; `program`: what the program wants."""
        sizes = {**SIZES[width <= SMALL_WIDTH], "binarize": "none", **program}
        if self.steps is not None or (self.epochs is None and program.get("steps") is not None):
            del sizes["epochs"]
        if self.epochs is not None:
            sizes.pop("steps", None)
        return dataclasses.replace(self, **{k: v for k, v in sizes.items() if getattr(self, k) is None})

    def to_json(self) -> str:
        """The configuration as JSON, one key a line; `from_json` reads it back equal."""
        return (
            json.dumps({name: getattr(self, name) for name in options_of(type(self))}, indent=2, ensure_ascii=False)
            + "\n"
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "configuration") -> "Config":
        """A validated configuration from plain values; keys may use "-" or "_"; `where` is named in errors."""
        named = {key.replace("-", "_"): value for key, value in values.items()}
        try:
            cls = config_class(find(str(named.get("model", DEFAULTS["model"]))).options)
            known = options_of(cls)
            for key in named:
                if key not in known:
                    raise unknown("key", key, known)
            accepted = {name: known[name].accept(value) for name, value in named.items()}
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

COMMON: dict[str, Option] = {name: item for group in GROUPS for name, item in options_of(group).items()}
"""The options of every run, whatever its program."""

DEFAULTS: dict[str, Any] = {name: item.default for name, item in COMMON.items()}


@cache
def config_class(options: type) -> type[Config]:
    """`Config` with the options of one kind of program among its fields.

    Raises: UsageError where an option of the program has the name of one that every run has.
    """
    taken = sorted(options_of(options).keys() & COMMON.keys())
    if taken:
        raise UsageError(f"{options.__name__}: every run has an option {taken[0]!r} already: give yours another name")
    own = [
        (f.name, f.type, dataclasses.field(default=f.default, metadata=f.metadata)) for f in dataclasses.fields(options)
    ]
    return dataclasses.make_dataclass(
        "Config", own, bases=(Config,), frozen=True, namespace={"__doc__": Config.__doc__}
    )
