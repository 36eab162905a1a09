"""An option is a dataclass field with a default, one line of help, and the values that it accepts.

`option(default, help, choices=…, check=…)` makes such a field. For each type annotation, `KINDS` says how a value is
read from text, how it is shown, and how a value from JSON or TOML is checked. The command line and the configuration
files use it.
"""

import dataclasses
import math
import typing
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from pathscore.config.choices import CHOICES
from pathscore.errors import UsageError, unknown


@dataclasses.dataclass(frozen=True)
class Check:
    """A condition on a value, and its wording in an error: "must be positive"."""

    words: str
    holds: Callable[[Any], bool]


def between(low: float, high: float) -> Check:
    """Low ≤ value ≤ high; NaN is outside."""
    return Check(f"must lie between {low:g} and {high:g}", lambda value: low <= value <= high)


POSITIVE = Check("must be positive and finite", lambda value: 0 < value < math.inf)
NOT_NEGATIVE = Check("must be zero or more, and finite", lambda value: 0 <= value < math.inf)
FRACTION = Check("must be at least 0 and below 1", lambda value: 0 <= value < 1)
FILLED = Check("must not be empty", bool)


def option(
    default: Any,
    help: str,
    *,
    choices: str | Sequence[str] | Callable[[], Iterable[str]] | None = None,
    names: Callable[[Any], Iterable[str]] | None = None,
    check: Check | None = None,
    none: str = "none",
    form: str = "",
) -> Any:
    """A field of a configuration.

    choices: the words that it accepts, a function that returns them, or the name of a tuple in
        `pathscore.config.choices.CHOICES`.
    names: a function that extracts from a value the names that must be among the choices; by default the value itself.
    form: what else the value may look like, for the help text.
    check: a condition on the value, or on each member of a tuple.
    none: the word for None on the command line ("auto", "none").
    """
    metadata = {"help": help, "choices": choices, "names": names, "check": check, "none": none, "form": form}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Kind:
    """How values of one type are read from a word, shown as a word, and checked when they come from a file."""

    metavar: str
    read: Callable[[str], Any]
    accept: Callable[[Any], bool]
    words: str
    show: Callable[[Any], str] = str


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _members(value: Any, accept: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(accept(member) for member in value)


def _split(read: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda word: tuple(read(part) for part in word.split(","))


def shown(values: Any) -> str:
    """The members of a tuple as one word: "0.9,0.999"."""
    return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


KINDS: dict[Any, Kind] = {
    bool: Kind("BOOL", {"true": True, "false": False}.__getitem__, lambda v: isinstance(v, bool), "true or false"),
    int: Kind("INT", int, _is_int, "a whole number"),
    float: Kind("FLOAT", float, _is_number, "a number"),
    str: Kind("TEXT", str, lambda v: isinstance(v, str), "text"),
    tuple[int, ...]: Kind("N,N,…", _split(int), lambda v: _members(v, _is_int), "whole numbers, as in 200,200", shown),
    tuple[float, ...]: Kind("A,B", _split(float), lambda v: _members(v, _is_number), "numbers, as in 0.9,0.999", shown),
}


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of a configuration with the arguments that `option` was called with."""

    name: str
    default: Any
    kind: Kind
    optional: bool
    help: str
    choices: str | Sequence[str] | Callable[[], Iterable[str]] | None
    names: Callable[[Any], Iterable[str]] | None
    check: Check | None
    none: str
    form: str

    @property
    def words(self) -> tuple[str, ...]:
        """The words that the option accepts; empty where it has no fixed choices."""
        if callable(self.choices):
            return tuple(self.choices())
        return CHOICES[self.choices] if isinstance(self.choices, str) else tuple(self.choices or ())

    @property
    def flag(self) -> str:
        """The option as written on the command line: "--batch-size"."""
        return "--" + self.name.replace("_", "-")

    def read(self, word: str) -> Any:
        """The value of a command-line word. Raises UsageError, which names the flag."""
        if self.optional and word.lower() == self.none:
            return None
        try:
            return self.kind.read(word)
        except (ValueError, KeyError):
            raise UsageError(f"{self.flag} takes {self.kind.words}, got {word!r}") from None

    def show(self, value: Any) -> str:
        """The word that `read` would turn into this value."""
        return self.none if value is None else self.kind.show(value)

    def accept(self, value: Any) -> Any:
        """The value for a configuration, from JSON or TOML. Raises UsageError, which names the key."""
        if value is None:
            if self.optional:
                return None
            raise UsageError(f"{self.name} must be {self.kind.words}, got null")
        if not self.kind.accept(value):
            raise UsageError(f"{self.name} must be {self.kind.words}, got {value!r}")
        if isinstance(value, list | tuple):
            return tuple(value)
        return float(value) if self.kind is KINDS[float] else value

    def require(self, value: Any) -> None:
        """Raise UsageError unless the value is one of the choices (where there are any) and passes the check."""
        if value is None:
            return
        for name in self.names(value) if self.names else [value] if self.choices else ():
            if name not in self.words:
                raise unknown(self.choices if isinstance(self.choices, str) else self.name, name, self.words)
        members = value if isinstance(value, tuple) else (value,)
        if self.check is not None and not all(self.check.holds(member) for member in members):
            raise UsageError(f"{self.flag} {self.check.words}, got {self.show(value) or 'nothing'}")


@cache
def options_of(cls: type) -> dict[str, Option]:
    """The options of a dataclass, by name, in the order of their fields."""
    hints = typing.get_type_hints(cls)
    return {field.name: _option_of(field, hints[field.name]) for field in dataclasses.fields(cls)}


def _option_of(field: dataclasses.Field, hint: Any) -> Option:
    optional = type(None) in typing.get_args(hint)
    if optional:
        (hint,) = (arm for arm in typing.get_args(hint) if arm is not type(None))
    return Option(name=field.name, default=field.default, kind=KINDS[hint], optional=optional, **field.metadata)
