"""Time to the first steps and peak memory of each variant, each in a process of its own: `footprints(case, …) -> str`.

    python -m benchmarks.footprint CASE VARIANT THREADS   prints {"build": seconds, "megabytes": peak}

"build" is the time of the first five steps without imports. It includes making the parameters, the optimiser and the
graph, where there is one. It is measured twice: with an empty cache on disk, and with what the first process built.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.cases import CASES, Case
from benchmarks.numpyro_process import NumPyro

STEPS = 5
ROOT = Path(__file__).parents[1]


def footprints(case: Case, threads: int, numpyro: str | None) -> str:
    """One line per variant."""
    from benchmarks.variants import VARIANTS

    lines = []
    for name in VARIANTS:
        with tempfile.TemporaryDirectory() as cache:
            first, again = (_of(case, name, threads, cache) for _ in range(2))
        lines.append(
            _line(name, threads, f"{first['build']:6.2f} s, again {again['build']:6.2f} s", again["megabytes"])
        )
    if numpyro:
        with NumPyro(case, threads, numpyro) as child:
            lines.append(_line("numpyro", threads, f"{child.build:6.2f} s{'':16}", child.megabytes()))
    return "\n".join(lines)


def _line(variant: str, threads: int, build: str, megabytes: float) -> str:
    return f"  {variant:21} threads {threads}: first {STEPS} steps {build}, peak {megabytes:5.0f} MB"


def _of(case: Case, variant: str, threads: int, cache: str) -> dict[str, float]:
    words = [sys.executable, "-m", "benchmarks.footprint", case.name, variant, str(threads)]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
    done = subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def peak_megabytes() -> float:
    """Peak resident memory of this process in MB. `getrusage` would include the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main(name: str, variant: str, threads: str) -> None:
    """Take the first steps of a variant in this process."""
    import torch

    from benchmarks.variants import VARIANTS

    torch.set_num_threads(int(threads))
    case = CASES[name]
    x, start = case.data(), time.perf_counter()
    step = VARIANTS[variant](case)
    for _ in range(STEPS):
        step(x)
    print(json.dumps({"build": time.perf_counter() - start, "megabytes": peak_megabytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
