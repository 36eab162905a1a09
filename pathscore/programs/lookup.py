"""The program that a value of `--model` names: `find("vae")`, or `find("path/to/file.py:NAME")` for your own.

The engine works with any Pyro program and imports neither `models` nor `guides` when it is imported. Other
distributions and folders may use these two names too, so a check makes sure that they are the packages beside
`pathscore`.
"""

import importlib
import sys
from hashlib import sha256
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from pathscore.errors import UsageError, unknown
from pathscore.programs.entry import Program

HOME = Path(__file__).resolve().parents[2]
SUFFIX = ".py"


def find(word: str) -> Program:
    """The program of this name in `MODELS`, or in a file: "path/to/file.py:NAME".

    Raises UsageError for an unknown name, a file that is missing or cannot be imported, or a name that is not in it.
    """
    if is_file(word):
        return in_file(word)
    models = beside("models").MODELS
    if word not in models:
        error = unknown("model", word, models)
        raise UsageError(f"{error}; name your own program as path/to/file.py:NAME")
    return models[word].load()


def names_of_programs() -> tuple[str, ...]:
    return tuple(beside("models").MODELS)


def is_file(word: str) -> bool:
    """Whether the word names a program in a file."""
    return word.endswith(SUFFIX) or f"{SUFFIX}:" in word


def absolute(word: str) -> str:
    """The word with the absolute path of its file, so that it is found from any directory."""
    if not is_file(word):
        return word
    path, _, name = word.rpartition(":") if not word.endswith(SUFFIX) else (word, "", "")
    return ":".join(part for part in (str(Path(path).expanduser().absolute()), name) if part)


def place_name(word: str) -> str:
    """A short name of a program: the word itself, or for a file the name in it, or else the name of the file."""
    if not is_file(word):
        return word
    name = word.rpartition(":")[2]
    return Path(word).stem if name.endswith(SUFFIX) else name


def place_of(program: Program) -> str:
    """The word with which `find` finds this program. Raises UsageError where no file holds it."""
    for word, listed in beside("models").MODELS.items():
        if listed.load() is program:
            return word
    module = sys.modules.get(getattr(program.make, "__module__", ""))
    path = getattr(module, "__file__", None)
    names = [name for name, value in vars(module).items() if value is program] if module else []
    if not path or not names:
        raise UsageError(
            "the program cannot be found again: assign it to a name at the top level of the file that defines its "
            "`make`, and import it from there"
        )
    return f"{Path(path).absolute()}:{names[0]}"


def in_file(word: str) -> Program:
    """The program of this name in a file. The name may be left out if the file has only one program."""
    path, _, name = absolute(word).rpartition(":") if not word.endswith(SUFFIX) else (absolute(word), "", "")
    held = {key: value for key, value in vars(_imported(Path(path))).items() if isinstance(value, Program)}
    if name in held:
        return held[name]
    if not name and len(held) == 1:
        return next(iter(held.values()))
    known = f"it holds {', '.join(held)}" if held else "assign a pathscore.Program to a name in it"
    raise UsageError(f"--model {word}: {f'no program {name!r} in {path}' if name else 'name the program'}: {known}")


def _imported(path: Path) -> ModuleType:
    """The module of a file. It is executed once per process, with its folder on the import path as for a script."""
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(path):
            return module
    if not path.is_file():
        raise UsageError(f"--model {path}: there is no such file")
    name = f"{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        del sys.modules[name]
        raise UsageError(f"--model {path} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def beside(name: str) -> ModuleType:
    """The package `name` in the folder that holds `pathscore`. Another package of this name is not imported."""
    spec = find_spec(name)
    origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    if origin != HOME / name / "__init__.py":
        raise UsageError(
            f"{HOME / name} is shadowed by {origin or 'a folder without __init__.py'}: rename that, or remove its "
            "folder from the import path"
        )
    return importlib.import_module(name)
