"""The imports of the source tree, read as text: `imports_of(root) -> {module: modules it imports}`, climbs, circles.

Imports inside functions and under `TYPE_CHECKING` count like any other. A room is a folder of `pathscore`, one of
the packages `models` and `guides`, or `models/entries`, which stands above them all.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGES = ("pathscore", "models", "guides")

FLOORS = (
    ("entries",),
    ("guides",),
    ("models",),
    ("command",),
    ("reports",),
    ("runs",),
    ("trained",),
    ("gradients",),
    ("diagnostics",),
    ("evaluation",),
    ("svi",),
    ("compiling",),
    ("elbos",),
    ("data",),
    ("config",),
    ("estimators", "exact"),
    ("programs", "machine"),
    ("errors",),
)
"""Rooms from the top floor down: an import goes to a lower floor, or stays in its room."""

LOOSE = {"__init__", "__main__", "errors"}
"""The files that lie directly in `pathscore`."""


def modules(root: Path) -> dict[str, Path]:
    """Dotted name → file, for every module of the packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = list(path.relative_to(root).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(root: Path) -> dict[str, set[str]]:
    """Module → the modules of the packages that it imports, wherever in its text."""
    known = modules(root)
    return {name: set(_imported(path, known)) - {name} for name, path in known.items()}


def _imported(path: Path, known: dict[str, Path]):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in known:
                    yield whole
                elif node.module in known:
                    yield node.module


def room(module: str) -> str:
    """The room of a module: "svi" for "pathscore.svi.state", "models" for "models.vae"."""
    parts = module.split(".")
    if parts[:2] == ["models", "entries"]:
        return "entries"
    return parts[0] if parts[0] != "pathscore" or len(parts) == 1 else parts[1]


def climbs(imports: dict[str, set[str]]) -> list[str]:
    """Imports that do not go down: "pathscore.svi.state → pathscore.runs.job"."""
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}
    doors = {"pathscore", "__main__"}  # they stand above every floor, and nothing imports them
    return sorted(
        f"{module} → {target}"
        for module, targets in imports.items()
        for target in targets
        if room(module) not in doors and room(module) != room(target)
        if room(target) in doors or floor[room(target)] <= floor[room(module)]
    )


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of one circle of imports, in order; empty where there is none."""
    try:
        tuple(TopologicalSorter(imports).static_order())
    except CycleError as error:
        return error.args[1]
    return []
