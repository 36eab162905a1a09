"""Packages that not everybody needs: `brought(name, extra) -> module`, or one line that says how to install it."""

import importlib
from types import ModuleType

from pathscore.errors import UsageError


def brought(name: str, extra: str, purpose: str) -> ModuleType:
    """The module of an optional package. Raises UsageError, which names the extra, where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = error.name or name
        raise UsageError(f"{purpose} needs {missing}: pip install 'pathscore[{extra}]'") from None
