"""The arguments of a small verb: `read_words(words, cls, positional) -> (instance of cls, positional words)`.

This is for verbs with a few flags; `pathscore.command.arguments` reads the many flags of a run. A flag is a field made
with `pathscore.config.options.option`. Its forms are `--flag value`, `--flag=value`, and `--flag` for a switch. Nothing
here imports torch.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from pathscore.config.options import Option, options_of
from pathscore.errors import UsageError, suggest

T = TypeVar("T")


def read_words(words: Sequence[str], cls: type[T], positional: int = 0) -> tuple[T, list[str]]:
    """The flags among the words as an instance of the dataclass `cls`, and up to `positional` other words.

    Raises: UsageError (one line) for an unknown flag, a flag without a value, a value that is not accepted, or too many
    words.
    """
    known = {item.flag: item for item in options_of(cls).values()}
    values: dict[str, Any] = {}
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            others.append(word)
            continue
        flag, given, value = word.partition("=")
        item = _flag(flag, known)
        if _is_switch(item) and not given:
            values[item.name] = True
            continue
        values[item.name] = _read(item, value if given else next(rest, None))
    if len(others) > positional:
        raise UsageError(f"unexpected argument {others[positional]!r}: see --help")
    return cls(**values), others


def asked(
    words: Sequence[str], cls: type[T], usage: str, positional: int = 1, below: str = ""
) -> tuple[T, list[str]] | None:
    """`read_words` of a verb that needs a run directory; None where help was asked for, or nothing, and was printed."""
    if not words or "-h" in words or "--help" in words:
        print(usage + describe(cls) + below)
        return None
    request, places = read_words(words, cls, positional)
    if not places:
        verb = usage.split()[2]
        raise UsageError(f"{verb} needs a run directory: pathscore {verb} RUN_DIR")
    return request, places


def describe(cls: type) -> str:
    """The flags of a dataclass with their defaults, one per line, for a help text."""
    items = list(options_of(cls).values())
    heads = [item.flag if _is_switch(item) else f"{item.flag} {item.kind.metavar}" for item in items]
    width = max(map(len, heads))
    defaults = ["" if _is_switch(item) else f" (default: {item.show(item.default)})" for item in items]
    lines = zip(heads, items, defaults, strict=True)
    return "\n".join(f"  {head:{width}}  {item.help}{default}" for head, item, default in lines)


def _flag(flag: str, known: dict[str, Option]) -> Option:
    flag = flag.replace("_", "-")
    if flag not in known:
        near = suggest(flag, known)
        raise UsageError(f"unknown flag {flag}: {near if near.startswith('did') else 'see --help'}")
    return known[flag]


def _is_switch(item: Option) -> bool:
    return item.kind.metavar == "BOOL"


def _read(item: Option, word: str | None) -> Any:
    if word is None:
        raise UsageError(f"{item.flag} takes {item.kind.words}: give a value")
    value = item.read(word)
    item.require(value)
    return value
