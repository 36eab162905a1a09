"""The command line: verbs, exit codes, and one line for every error.

`main(words) -> exit code`. A verb is an entry of `VERBS`: one line of help, and the place of its function,
`function(words) -> exit code`. It is imported when it is called, so that the help does not wait for torch.
Exit codes: 0 done, 1 a fault of this program, 2 usage or data, 3 run directory, 4 numerics, 130/143 signals.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from pathscore.errors import PathscoreError, UsageError, unknown
from pathscore.machine.terminal import plain_where_needed


@dataclass(frozen=True)
class Verb:
    """One verb: its line in the help, and its function as "module:name"."""

    doc: str
    where: str

    def __call__(self, words: Sequence[str]) -> int:
        module, _, name = self.where.partition(":")
        return getattr(importlib.import_module(module), name)(words)


VERBS: dict[str, Verb] = {
    "train": Verb("train, evaluate and save a run (same as python run.py)", "pathscore.command.train:main"),
    "gradients": Verb("measure bias, variance and cost of gradient estimators", "pathscore.command.gradients:main"),
    "choose": Verb("race the estimators of a run: which one to use at each site", "pathscore.command.choose:main"),
    "diagnose": Verb("check how far to trust a run's guide: report.html", "pathscore.command.diagnose:main"),
    "encode": Verb("write means and scales, or probabilities, of your data", "pathscore.command.encode:main"),
    "generate": Verb("write new data drawn from a run's model", "pathscore.command.generate:main"),
    "export": Verb("write encoder and decoder as files that load without pathscore", "pathscore.command.export:main"),
    "compare": Verb("compare runs by paired differences: comparison.html", "pathscore.command.compare:main"),
    "list": Verb("print all choices, and which of them can be combined", "pathscore.command.tables:main"),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the verb at the beginning of `words` (the process's arguments if None), and return the exit code."""
    with plain_where_needed():
        return run(list(sys.argv[1:] if words is None else words))


def run(words: list[str]) -> int:
    """Run a verb; every error is one line and an exit code."""
    try:
        code = dispatch(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, head perhaps, has seen enough; nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as exit:
        return int(exit.code or 0)
    except KeyboardInterrupt as error:  # a run that a signal stopped has a message and an exit code of its own
        return fail(str(error) or "interrupted", getattr(error, "exit_code", 130))
    except PathscoreError as error:
        return fail(str(error), error.exit_code, "--debug" in words)
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return fail(f"unexpected {what} (--debug shows where; please report it)", 1, "--debug" in words)


def dispatch(words: list[str]) -> int:
    """Call the verb, or print the help of verbs."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] not in VERBS:
        if words[0].startswith("-"):
            raise UsageError(f"give a verb first, as in pathscore train {words[0]}: {', '.join(VERBS)}")
        raise unknown("verb", words[0], VERBS)
    return VERBS[words[0]](words[1:])


def usage() -> str:
    """The help text with all verbs."""
    width = max(map(len, VERBS))
    lines = [f"  {name:{width}}  {verb.doc}" for name, verb in VERBS.items()]
    return "\n".join(["usage: pathscore VERB …        (pathscore VERB --help says more)", "", *lines])


def fail(message: str, code: int, debug: bool = False) -> int:
    """Print one line on stderr, after the traceback if `debug`, and return the exit code."""
    if debug:
        traceback.print_exc()
    print(f"pathscore: {' '.join(message.split())}", file=sys.stderr)
    return code
