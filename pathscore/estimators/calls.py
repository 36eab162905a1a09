"""A name with options in one word, as in "gumbel(temperature=0.3)": `read_call(text, what) -> (name, options)`.

Estimators, optimisers and objectives are named in this form on the command line and in Python. Nothing here imports
torch.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pathscore.errors import UsageError, unknown


def read_call(text: str, what: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of a word.

    >>> read_call("adam(lr=0.03)", "optim")
    ('adam', {'lr': 0.03})
    >>> read_call("pathwise(draws=stratified)", "--estimator")
    ('pathwise', {'draws': 'stratified'})

    Raises: UsageError for a word that is not NAME or NAME(option=value, …).
    """
    text = text.strip()
    if "(" not in text:
        return text, {}
    try:
        call = ast.parse("options" + text[text.index("(") :], mode="eval").body
        assert isinstance(call, ast.Call) and not call.args
        options = {str(k.arg): _literal(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise UsageError(f"{what}: cannot read '{text}': write NAME(option=value)") from None
    return text[: text.index("(")], options


def _literal(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)  # a bare word stands for itself


def call(make: Callable[..., Any], name: str, options: Mapping[str, Any], what: str) -> Any:
    """`make(**options)`. Raises: UsageError for an option that it does not take, or a value that it refuses."""
    known = options_of(make)
    for option in options:
        if option not in known:
            if not known:
                raise UsageError(f"{what}: {name} takes no options, got {option!r}")
            raise unknown(f"option of {name}", option, known)
    try:
        return make(**options)
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what}: {name} does not take these options: {error}") from None


def options_of(make: Callable[..., Any]) -> list[str]:
    """The names of what a function or a class can be called with."""
    parameters = inspect.signature(make).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
