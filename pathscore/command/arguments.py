"""From words on the command line to a validated configuration, without importing torch.

`parse(words, prog) -> (Config, Invocation)`. tyro builds the parser and the help text from the grouped dataclasses of
`pathscore.config` and from that of the program that `--model` names. Its errors are raised again as a UsageError of one
line. `Invocation` holds the settings of this call that are not part of the run: its directory, and how much it prints.
"""

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from pathscore.config import (
    FILLED,
    FREE,
    GROUPS,
    PYROS,
    Config,
    by_pattern,
    completed,
    config_class,
    option,
    options_of,
)
from pathscore.config.options import Option
from pathscore.errors import UsageError, suggest
from pathscore.programs.lookup import find, names_of_programs, place_name
from pathscore.runs.rundir import read_config


@dataclasses.dataclass(frozen=True)
class Invocation:
    """This call"""

    config: str | None = option(None, "preset FILE.toml; flags override it", check=FILLED)
    out: str | None = option(None, "run directory", check=FILLED, none="auto")
    resume: str | None = option(None, "continue the run in this directory", check=FILLED)
    report: bool = option(False, "diagnose the guide at the end, and write report.html")
    quiet: bool = option(False, "print only the result")
    debug: bool = option(False, "show tracebacks")


def parse(words: Sequence[str], prog: str) -> tuple[Config, Invocation]:
    """The configuration from the words, and from the preset or run directory that they name.

    Raises UsageError (one line) for an unknown flag, a value that cannot be read or is not accepted, and for flags that
    contradict the resumed run. Prints the help and raises SystemExit(0) for `--help`.
    """
    base, word = starting_point(words)
    model = find(word).options
    given = refuse_unknown(words, model)
    first, call = read(words, prog, Config(model=word))
    if {"--data", "--dataset"} <= given:
        raise UsageError("--data and --dataset both say what to train on: give one of them")
    if base is None:
        return first.validate(), call
    if "--dataset" in given and call.config is not None:
        base = dataclasses.replace(base, data=None)
    config, _ = read(words, prog, lengthened(under(base, word), first))
    if call.resume is not None:
        refuse_changes(base, config)
        config = dataclasses.replace(config, estimator=base.estimator)  # whole, where the flag repeats a part of it
    return config.validate(), call


def starting_point(words: Sequence[str]) -> tuple[Config | None, str]:
    """The configuration in the preset or run directory, if one is named, and the name of the program."""
    preset, run = value_of(words, "--config"), value_of(words, "--resume")
    if preset and run:
        raise UsageError("--config and --resume both say what to run: give one of them")
    if run and value_of(words, "--out"):
        raise UsageError("--resume continues in the directory of the run: remove --out")
    base = None
    if preset:
        base = Config.from_toml(preset)
    elif run:
        base = read_config(Path(run))
    return base, value_of(words, "--model") or (base or Config()).model


def value_of(words: Sequence[str], flag: str) -> str | None:
    """The value of a flag in words that are not parsed yet."""
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if word == flag:
            return following or None
        if word.startswith(f"{flag}="):
            return word.partition("=")[2] or None
    return None


def under(base: Config, word: str) -> Config:
    """`base` for the named program. For another program, only the options that both have are kept."""
    cls = config_class(find(word).options)
    if type(base) is cls:
        return dataclasses.replace(base, model=word)
    shared: dict[str, Any] = {name: value for name, value in vars(base).items() if name in options_of(cls)}
    return cls(**{**shared, "model": word})


def refuse_unknown(words: Sequence[str], model: type) -> set[str]:
    """The flags among the words. Raises UsageError for the first word that looks like a flag but is unknown.

    model: the options of the program.
    """
    flags, given = [item.flag for item in all_options(model).values()], set()
    for word in words:
        flag = word.split("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in [*flags, "--help"]:
            near = suggest(flag, flags)
            owners = [name for name in names_of_programs() if flag in flags_of(find(name).options)]
            if owners:
                raise UsageError(f"{flag} is an option of --model {owners[0]}: leave it out")
            raise UsageError(f"unknown flag {flag}: {near if near.startswith('did') else 'see --help'}")
        given.add(flag)
    return given


def lengthened(base: Config, flags: Config) -> Config:
    """`base` without its own length where a flag gives one: --steps replaces a preset's epochs, --epochs its steps."""
    if flags.steps is not None or flags.epochs is not None:
        return dataclasses.replace(base, steps=None, epochs=None)
    return base


def refuse_changes(base: Config, config: Config) -> None:
    """Raise UsageError when a flag contradicts the resumed run."""
    for name, item in options_of(type(config)).items():
        was, now = getattr(base, name, None), getattr(config, name)
        if name == "estimator" and was and now:
            now = completed(now, by_pattern(was).get("*", PYROS))
        # A schedule that depends on the length of the run would have been different from the first step on.
        free = name in FREE and not (name in ("epochs", "steps") and base.schedule in ("cosine", "linear"))
        if was != now and not free:
            raise UsageError(
                f"{item.flag} {item.show(now)} contradicts the run, which has {item.show(was)}: leave the flag out, "
                "or start a new run"
            )


def read(words: Sequence[str], prog: str, base: Config) -> tuple[Config, Invocation]:
    """Read the words with the values of `base` as defaults. Values are not yet checked against their choices."""
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
    return type(base)(**values), call


DESCRIPTION = "Train a program, evaluate it and save the run. `--help --model NAME` shows the options of that program."
MARKERS = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff)


def groups_of(model: type) -> tuple[type, ...]:
    """The groups of options in the order of the help: the kind of program, the program's own options, the others."""
    return (GROUPS[0], model, *GROUPS[1:], Invocation)


def all_options(model: type) -> dict[str, Option]:
    """Every option of a call, by name."""
    return {name: item for group in groups_of(model) for name, item in options_of(group).items()}


def flags_of(model: type) -> list[str]:
    """The flags of a program's own options."""
    return [item.flag for item in options_of(model).values()]


def grouped(base: Config, refused: list[UsageError]) -> tuple[type, Any]:
    """The class that tyro needs, with one member per group of options, and its instance with the values of `base`."""
    values = {**vars(base), **vars(Invocation())}
    members, defaults = [], {}
    for group in groups_of(base.program.options):
        options = options_of(group)
        cls = dataclasses.make_dataclass(
            group.__name__, [(name, annotated(item, refused), item.default) for name, item in options.items()]
        )
        cls.__doc__ = heading(group, base)
        member = "program" if group is base.program.options else group.__name__.lower()
        members.append((member, cls))
        defaults[member] = cls(**{name: values[name] for name in options})
    view = dataclasses.make_dataclass("Groups", members)
    return view, view(**defaults)


def heading(group: type, base: Config) -> str:
    """The title of a group in the help."""
    own = group is base.program.options
    return f"{group.__doc__} (--model {place_name(base.model)})" if own else group.__doc__ or ""


def annotated(item: Option, refused: list[UsageError]) -> Any:
    """The type of an option for tyro: how to read a word, how to show it, and its help text.

    For a word that cannot be read, tyro prints an error in a box and exits. `refused` keeps the error as one line.
    """

    def read_word(words: list[str]) -> Any:
        try:
            return item.read(words[0])
        except UsageError as error:
            refused.append(error)
            raise

    if item.kind.metavar == "BOOL":
        return Annotated[bool, tyro.conf.arg(help=item.help)]
    metavar = ("{" + ",".join(item.words) + "}" if item.words else item.kind.metavar) + item.form
    spec = PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=read_word,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [item.show(value)],
    )
    return Annotated[typing.Any, spec, tyro.conf.arg(help=item.help)]
