"""The errors that a user can cause. Each message is one line, and each class has the exit code of the process.

Every message names the flag or the file, and the remedy. `pathscore.command.cli` prints it after "pathscore: " and
shows a traceback only under `--debug`. Nothing here imports torch.
"""

import difflib
import re
from collections.abc import Iterable


class PathscoreError(ValueError):
    """Base of the errors that end a run with one line; `exit_code` is what the process returns."""

    exit_code = 1

    def __str__(self) -> str:
        """The line alone: to an error raised inside a program, Pyro adds the shapes of all its sites."""
        return re.split(r"\n\s*Trace Shapes:", super().__str__())[0]


class UsageError(PathscoreError):
    """A flag, a configuration key, a combination of choices or the data is not acceptable: exit code 2."""

    exit_code = 2


class DataError(UsageError):
    """A data set is missing, damaged, or holds values that the run cannot use: exit code 2."""


class RunDirError(PathscoreError):
    """A run directory cannot be made, read, locked or written: exit code 3."""

    exit_code = 3


class NumericsError(PathscoreError):
    """A loss or gradient stopped being finite: exit code 4."""

    exit_code = 4


def suggest(word: str, options: Iterable[str]) -> str:
    """The tail of an "unknown …" message: the nearest option, or the whole list when none is near.

    >>> suggest("bernouli", ["normal", "bernoulli"])
    "did you mean 'bernoulli'?"
    >>> suggest("xyz", ["normal", "bernoulli"])
    'choose from normal, bernoulli'
    """
    names = list(options)
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names)}"


def unknown(kind: str, word: str, options: Iterable[str]) -> UsageError:
    """The error for a name that is in no table: "unknown latent 'bernouli': did you mean 'bernoulli'?"."""
    return UsageError(f"unknown {kind} {word!r}: {suggest(word, options)}")


def in_short(error: BaseException, limit: int = 200) -> str:
    """An error of somebody's program in one short line: kind and text, without the shapes of all of its sites.

    >>> in_short(ValueError("sizes differ\\nTrace Shapes:\\n z dist 3"))
    'ValueError: sizes differ'
    """
    text = " ".join(str(error).split("Trace Shapes:")[0].split())
    return f"{type(error).__name__}: {text}"[:limit].rstrip(": ")
