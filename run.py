"""Train, evaluate and save one run: `python run.py --elbo tracegraph`. The same as `pathscore train`.

It uses only the packages beside this file. `pathscore` is checked here; `pathscore.programs.lookup` checks `models` and
`guides` when the run begins.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

if __name__ == "__main__":
    spec = find_spec("pathscore")
    found = Path(spec.origin or "").resolve().parent if spec else None
    if found != Path(__file__).resolve().parent / "pathscore":
        print(f"run.py: pathscore is shadowed by {found}: remove that, or fix the import path", file=sys.stderr)
        sys.exit(2)
    from pathscore.command.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
