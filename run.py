"""Train, evaluate and save one run: `python run.py --elbo tracegraph`. All of it is `pathscore train`.

Before anything else it makes sure that `pathscore`, `models` and `guides` are the packages beside this file.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent


def shadowed() -> str | None:
    """What keeps one of the packages beside this file from being imported; None when nothing does."""
    for name in ("pathscore", "models", "guides"):
        spec = find_spec(name)
        origin = Path(spec.origin or "").resolve() if spec else None
        if origin != HERE / name / "__init__.py":
            return f"{name} is shadowed by {origin}: remove that, or take its folder off the import path"
    return None


if __name__ == "__main__":
    if problem := shadowed():
        sys.exit(f"run.py: {problem}")
    from pathscore.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
