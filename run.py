"""Train, evaluate and save one run: `python run.py --elbo tracegraph`. All of it is `pathscore train`.

It works with the packages beside this file and with no others: `pathscore` is checked here, `models` and `guides` by
`pathscore.lookup` when the run begins.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

if __name__ == "__main__":
    spec = find_spec("pathscore")
    found = Path(spec.origin or "").resolve().parent if spec else None
    if found != Path(__file__).resolve().parent / "pathscore":
        sys.exit(f"run.py: pathscore is shadowed by {found}: remove that, or take its folder off the import path")
    from pathscore.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
