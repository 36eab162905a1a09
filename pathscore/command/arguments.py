"""From words on the command line to a validated configuration, without importing torch.

`parse(words, prog) -> (Config, Invocation)`. tyro builds the parser and the help text from the grouped dataclasses of
`pathscore.config`; whatever it refuses is raised again as a UsageError of one line. `Invocation` holds what belongs to
one call and not to the run: where it reads and writes, and how much it says.
"""

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from pathscore.config import FREE, GROUPS, Config
from pathscore.config.choices import CHOICES
from pathscore.config.options import FILLED, Option, option, options_of
from pathscore.errors import UsageError, suggest
from pathscore.runs.rundir import read_config


@dataclasses.dataclass(frozen=True)
class Invocation:
    """This call"""

    config: str | None = option(None, "preset FILE.toml; flags override it", check=FILLED)
    out: str | None = option(None, "run directory", check=FILLED, none="auto")
    resume: str | None = option(None, "continue the run in this directory", check=FILLED)
    report: bool = option(False, "diagnose the guide at the end: report.html")
    quiet: bool = option(False, "print the result only")
    debug: bool = option(False, "show tracebacks")


def parse(words: Sequence[str], prog: str) -> tuple[Config, Invocation]:
    """The configuration that the words, and the preset or run directory they name, ask for.

    Raises UsageError (one line) for an unknown flag, a value that cannot be read or is refused, and for flags that
    contradict the run being resumed. Prints the help and raises SystemExit(0) for `--help`.
    """
    given = refuse_unknown(words)
    first = read(words, prog, Config())
    if {"--data", "--dataset"} <= given:
        raise UsageError("--data and --dataset both say what to train on: give one of them")
    call = first[1]
    if call.config is None and call.resume is None:
        return first[0].validate(), call
    if call.config is not None and call.resume is not None:
        raise UsageError("--config and --resume both say what to run: give one of them")
    if call.out is not None and call.resume is not None:
        raise UsageError("--resume goes on in the directory of the run: leave --out away")
    base = Config.from_toml(call.config) if call.config is not None else read_config(Path(call.resume or ""))
    if "--dataset" in given and call.config is not None:
        base = dataclasses.replace(base, data=None)
    config, _ = read(words, prog, lengthened(base, first[0]))
    if call.resume is not None:
        refuse_changes(base, config)
    return config.validate(), call


def refuse_unknown(words: Sequence[str]) -> set[str]:
    """The flags among the words. Raises UsageError for the first word that looks like a flag and is none."""
    flags, given = [item.flag for item in ALL.values()], set()
    for word in words:
        flag = word.split("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in [*flags, "--help"]:
            near = suggest(flag, flags)
            raise UsageError(f"unknown flag {flag}: {near if near.startswith('did') else 'see --help'}")
        given.add(flag)
    return given


def lengthened(base: Config, flags: Config) -> Config:
    """`base` without its own length where a flag gives one: --steps replaces a preset's epochs, and the reverse."""
    if flags.steps is not None or flags.epochs is not None:
        return dataclasses.replace(base, steps=None, epochs=None)
    return base


def refuse_changes(base: Config, config: Config) -> None:
    """Raise UsageError when a flag contradicts the run that is to be resumed."""
    for name, item in options_of(Config).items():
        was, now = getattr(base, name), getattr(config, name)
        # A schedule that ends with the run would have been another one from the first step.
        free = name in FREE and not (name in ("epochs", "steps") and base.schedule in ("cosine", "linear"))
        if was != now and not free:
            raise UsageError(
                f"{item.flag} {item.show(now)} contradicts the run, which has {item.show(was)}: leave the flag out, "
                "or start a new run"
            )


def read(words: Sequence[str], prog: str, base: Config) -> tuple[Config, Invocation]:
    """The words read over the defaults of `base`; values are read but not yet checked against their choices."""
    refused: list[UsageError] = []
    view, defaults = grouped(base, refused)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            groups, rest = tyro.cli(
                view,
                prog=prog,
                args=list(words),
                default=defaults,
                description=DESCRIPTION,
                config=MARKERS,
                return_unknown_args=True,
            )
    except SystemExit as exit:
        if exit.code:
            flag = re.search(r"--[a-z][a-z-]*", said.getvalue())
            missing = f"{flag[0]} needs a value" if flag else "the arguments cannot be read: see --help"
            raise (refused[0] if refused else UsageError(missing)) from None
        raise
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}: see --help")
    values = {name: value for group in vars(groups).values() for name, value in vars(group).items()}
    call = Invocation(**{name: values.pop(name) for name in options_of(Invocation)})
    for name, item in options_of(Invocation).items():
        item.require(getattr(call, name))
    return Config(**values), call


DESCRIPTION = "Train a deep latent variable model, evaluate it and save the run."
MARKERS = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff)
ALL: dict[str, Option] = {name: item for group in (*GROUPS, Invocation) for name, item in options_of(group).items()}


def grouped(base: Config, refused: list[UsageError]) -> tuple[type, Any]:
    """A class with one member per group of options, as tyro wants it, and its instance with the values of `base`."""
    values = {**vars(base), **vars(Invocation())}
    members, defaults = [], {}
    for group in (*GROUPS, Invocation):
        options = options_of(group)
        cls = dataclasses.make_dataclass(
            group.__name__, [(name, annotated(item, refused), item.default) for name, item in options.items()]
        )
        cls.__doc__ = group.__doc__
        members.append((group.__name__.lower(), cls))
        defaults[group.__name__.lower()] = cls(**{name: values[name] for name in options})
    view = dataclasses.make_dataclass("Groups", members)
    return view, view(**defaults)


def annotated(item: Option, refused: list[UsageError]) -> Any:
    """The type of an option as tyro wants it: how to read one word, how to show it, and what to print in the help.

    tyro prints the error of a word that cannot be read in a box and exits; `refused` keeps it in one line.
    """

    def read_word(words: list[str]) -> Any:
        try:
            return item.read(words[0])
        except UsageError as error:
            refused.append(error)
            raise

    if item.kind.metavar == "BOOL":
        return Annotated[bool, tyro.conf.arg(help=item.help)]
    metavar = "{" + ",".join(CHOICES[item.choices]) + "}" if item.choices else item.kind.metavar
    metavar += "|SITE=NAME,…" * (item.names is not None)
    spec = PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=read_word,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [item.show(value)],
    )
    return Annotated[typing.Any, spec, tyro.conf.arg(help=item.help)]
