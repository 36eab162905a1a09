"""One seed gives the same weights in every process, and a run writes nothing beside its own directory.

Planted: a seed that depends on the hash of a word, and a file that is written into a package.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch
from training_runs import equal

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "import sys, training_runs; {planted}training_runs.main()"
HASHED = "torch = training_runs.torch; seed = torch.manual_seed; torch.manual_seed = lambda n: seed(n + hash('x')); "


def trained(directory: Path, hash_seed: str, planted: str = "") -> dict[str, torch.Tensor]:
    """The weights after four steps in a process of their own."""
    directory.mkdir()
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    env = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": hash_seed, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", SCRIPT.format(planted=planted), str(directory), "--steps", "4", "--every", "4"]
    subprocess.run(command, env=env, check=True, capture_output=True, cwd=directory, timeout=600)
    return torch.load(directory / "final.pt", weights_only=True)


def written(folder: Path) -> dict[Path, float]:
    """When each file of the folder was last written; bytecode that Python keeps is left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path: path.stat().st_mtime for path in files}


def packages() -> dict[Path, float]:
    return {path: time for name in ("pathscore", "models", "guides") for path, time in written(ROOT / name).items()}


def test_hash_seeds_change_nothing_and_no_package_is_written_to(tmp_path):
    before = packages()
    assert equal(trained(tmp_path / "a", "1"), trained(tmp_path / "b", "2"))
    assert packages() == before


def test_a_seed_that_depends_on_a_hash_is_noticed(tmp_path):
    assert not equal(trained(tmp_path / "a", "1", HASHED), trained(tmp_path / "b", "2", HASHED))


def test_a_file_beside_the_run_is_noticed(tmp_path):
    before = written(tmp_path)
    (tmp_path / "cache.json").write_text("{}")
    assert written(tmp_path) != before
