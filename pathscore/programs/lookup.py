"""The packages `models` and `guides`, looked up when a run begins: `programs() -> (models, guides)`.

The engine works with any Pyro program and imports neither when it is imported. Both names are ordinary words that other
distributions and folders use too, so what is found must be the package beside `pathscore`.
"""

import importlib
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from pathscore.errors import UsageError

HOME = Path(__file__).resolve().parents[2]


def programs() -> tuple[ModuleType, ModuleType]:
    """The packages `models` and `guides`. Raises UsageError where something else has taken one of the names."""
    return beside("models"), beside("guides")


def beside(name: str) -> ModuleType:
    """The package `name` of the folder that holds `pathscore`; a stranger of that name is not even imported."""
    spec = find_spec(name)
    origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    if origin != HOME / name / "__init__.py":
        raise UsageError(
            f"{HOME / name} is shadowed by {origin or 'a folder without __init__.py'}: rename that, or take its folder "
            "off the import path"
        )
    return importlib.import_module(name)
