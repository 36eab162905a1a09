"""Wall-clock time of whole commands, imports included: `seconds(words) -> float`."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def seconds(words: list[str]) -> float:
    """Seconds that `python run.py WORDS` takes; it writes into a temporary directory."""
    with tempfile.TemporaryDirectory() as where:
        start = time.perf_counter()
        subprocess.run([sys.executable, str(ROOT / "run.py"), *words], cwd=where, check=True, capture_output=True)
        return time.perf_counter() - start
