"""The configuration of a run: every choice, its default and its meaning, in one place.

`Config(model="vae", …)` is flat. Its parents group the fields for the help text. The program that `model` names adds a
group of its own. A field whose default is None and whose word is "auto" gets its value once the data are known, from
the program or from `Config.settled(width)` with `SIZES`. `to_json`, `from_json` and `from_toml` write and read files.
Errors name unknown keys and values. Nothing here imports torch.
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

from pathscore.config.choices import CHOICES
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


PYROS = "default"
"""The word of `--estimator` for Pyro's own gradient: the path where there is one, and the score function elsewhere."""


def by_pattern(text: str) -> dict[str, str]:
    """Site pattern → estimator, as words: "disarm" → {"*": "disarm"}, "z1=disarm,z2=gumbel(temperature=0.3)" → two."""
    found = {}
    for part in re.split(r",(?![^()]*\))", text):  # commas outside parentheses
        site, _, name = part.partition("(")[0].rpartition("=")
        found[site.strip() or "*"] = name.strip() + part[len(part.partition("(")[0]) :]
    return found


def named(text: str) -> list[str]:
    """The estimators in the value of a flag: "z1=disarm,z2=gumbel(temperature=0.3)" → disarm, gumbel."""
    return [word.partition("(")[0] for word in by_pattern(text).values()]


def completed(estimator: str | None, rest: str) -> str:
    """With the estimator `rest` where none is named: None → rest, "z1=disarm" → "z1=disarm,*=<rest>"."""
    if estimator is None:
        return rest
    return estimator if "*" in by_pattern(estimator) else f"{estimator},*={rest}"


@dataclasses.dataclass(frozen=True)
class Kind:
    """The kind of program: model p(x, z) and guide q(z | x)"""

    model: str = option(
        "vae",
        "kind of program; FILE.py:NAME for your own",
        choices=names_of_programs,
        names=lambda word: [] if is_file(word) else [word],
        form="|FILE.py:NAME",
        check=FILLED,
    )


@dataclasses.dataclass(frozen=True)
class Objective:
    """The objective and its gradient"""

    elbo: str = option("trace", "objective that is maximised (see pathscore list)", choices="elbo")
    estimator: str | None = option(
        None,
        "gradient estimator of each sample site; none: auto (vimco, ovis: their own); default: Pyro's own gradient",
        choices=(PYROS, *CHOICES["estimator"]),
        names=named,
        form=SITES,
    )
    particles: int | None = option(None, "particles: draws of z per data point", check=between(1, 10**6), none="auto")
    alpha: float = option(0.0, "order of the Rényi bound (0: importance-weighted)", check=NOT_ONE)
    fill: str = option("geometric", "replacement of a particle's weight in vimco's baseline", choices="fill")
    insomnia: float = option(1.0, "share of the wake phase in the guide's gradient", check=between(0, 1))
    kl: str = option("sampled", "how trace and tracegraph compute the KL terms", choices="kl")
    free_bits: float = option(0.0, "free bits: nats of KL per layer without a penalty", check=NOT_NEGATIVE)
    kl_weight: float = option(1.0, "weight of the KL terms (β)", check=NOT_NEGATIVE)
    kl_warmup: float = option(0.0, "epochs over which the KL weight rises from 0", check=NOT_NEGATIVE)
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
        None, "your own data: FILE.npz with an array x, and optionally x_test, y, y_test (labels)", check=FILLED
    )
    data_dir: str = option("data", "folder for downloaded data sets", check=FILLED)
    binarize: str | None = option(None, "how grey values are turned into 0 and 1", choices="binarize", none="auto")


@dataclasses.dataclass(frozen=True)
class Optimisation:
    """Optimisation"""

    epochs: int | None = option(None, "passes over the training set", check=between(1, 10**9), none="auto")
    steps: int | None = option(None, "number of optimiser steps, instead of --epochs", check=between(1, 10**12))
    batch_size: int | None = option(None, "data points per step", check=between(1, 10**7), none="auto")
    optimizer: str = option("adam", "optimiser", choices="optimizer")
    lr: float | None = option(None, "learning rate (auto: 0.001 if the program has none)", check=POSITIVE, none="auto")
    estimator_lr: float | None = option(
        None, "learning rate of an estimator's own parameters (none: --lr)", check=POSITIVE
    )
    betas: tuple[float, ...] = option((0.9, 0.999), "Adam's two decay rates", check=FRACTION)
    eps: float = option(1e-8, "Adam's ε", check=POSITIVE)
    weight_decay: float = option(0.0, "weight decay: decoupled for adamw, L2 penalty otherwise", check=NOT_NEGATIVE)
    momentum: float = option(0.0, "momentum of sgd", check=FRACTION)
    schedule: str = option("constant", "learning rate schedule", choices="schedule")
    warmup: int = option(0, "steps over which the learning rate rises from 0", check=between(0, 10**9))
    clip: float | None = option(None, "clip the global norm of the gradient to this value", check=POSITIVE)


@dataclasses.dataclass(frozen=True)
class Machine:
    """The machine and the evaluation"""

    seed: int = option(0, "seed of initial weights, order of the data and draws", check=between(0, 2**63 - 1))
    device: str = option("cpu", "device: auto, cpu, mps, cuda or cuda:N", check=DEVICE)
    dtype: str = option("float32", "floating-point type of parameters and data", choices="dtype")
    threads: int | None = option(None, "number of threads for tensor operations", check=between(1, 1024), none="auto")
    compile: str = option(
        "auto", "run steps as one compiled graph; auto: from 10 000 steps, 5 000 on cuda", choices="compile"
    )
    matmul_precision: str = option(
        "highest", "precision of float32 matrix products in training; medium: bfloat16", choices="matmul_precision"
    )
    eval_samples: int | None = option(
        None, "importance samples per data point for log p(x)", check=between(1, 10**7), none="auto"
    )


GROUPS = (Kind, Objective, Data, Optimisation, Machine)
"""The groups of options that every run has. In the help, the program's own options come after the first group."""

LR = 1e-3
"""The learning rate of programs that settle none of their own."""

# The values of "auto", for rows of up to 256 values (True) and for larger ones.
SMALL_WIDTH = 256
SIZES: dict[bool, dict[str, Any]] = {
    True: {"batch_size": 64, "epochs": 60, "eval_samples": 1000},
    False: {"batch_size": 256, "epochs": 20, "eval_samples": 100},
}


@dataclasses.dataclass(frozen=True)
class Config(Machine, Optimisation, Data, Objective, Kind):
    """Every choice of a run. `Config()` holds the defaults; `validate` checks the values.

    `Config(model=…, latent=…, …)` also takes the options of its program. It makes an instance of a subclass that has
    these options; there is one subclass per program.
    """

    def __new__(cls, **values: Any) -> "Config":
        """An instance of the subclass with the options of the program that `model` names."""
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
        """Return self. Raises UsageError, in one line, for the first value outside its choices or range."""
        for name, item in options_of(type(self)).items():
            item.require(getattr(self, name))
        if len(self.betas) != 2:
            raise UsageError(f"--betas takes two numbers, as in 0.9,0.999, got {shown(self.betas)}")
        if self.steps is not None and self.epochs is not None:
            raise UsageError("--steps and --epochs both say how long to train: give one of them")
        return self

    def settled(self, width: int, program: Mapping[str, Any]) -> "Config":
        """A copy with values for "auto" that suit rows of `width` values. `program`: values that the program chose."""
        sizes = {**SIZES[width <= SMALL_WIDTH], "binarize": "none", "lr": LR, **program}
        if self.steps is not None or (self.epochs is None and program.get("steps") is not None):
            del sizes["epochs"]
        if self.epochs is not None:
            sizes.pop("steps", None)
        return dataclasses.replace(self, **{k: v for k, v in sizes.items() if getattr(self, k) is None})

    def to_json(self) -> str:
        """The configuration as JSON, one key per line. `from_json` reads it back unchanged."""
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
        """Inverse of `to_json`. Raises UsageError when the text is not a JSON object or a key is unknown."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UsageError(f"{where} is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise UsageError(f"{where} must hold one JSON object")
        return cls.from_dict(values, where)

    @classmethod
    def from_toml(cls, path: str | Path) -> "Config":
        """A preset file, whose keys are flags without the dashes. Tables (`[data]`) may group them, with any name."""
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
"""The options that a resumed run may change: its length, and the machine it runs on."""

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
