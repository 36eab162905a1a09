"""NumPyro's jitted SVI in a separate process, because NumPyro may be installed for another interpreter.

    with NumPyro(case, threads, python, cpu_time) as child: child.slice(seconds) -> seconds per step

The child (numpyro_child.py) runs only when the parent asks it to, so that it takes turns with the other variants.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cases import Case

CHILD = Path(__file__).with_name("numpyro_child.py")


def has_numpyro(python: str) -> bool:
    """Whether that interpreter can import NumPyro."""
    return subprocess.run([python, "-c", "import numpyro"], capture_output=True).returncode == 0


class NumPyro:
    """A child process that has compiled the step of a case. `build`: the seconds that this took."""

    def __init__(self, case: Case, threads: int, python: str = sys.executable, cpu_time: bool = False, device="cpu"):
        one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" if threads == 1 else ""
        processors = sorted(os.sched_getaffinity(0))[: threads if device == "cpu" else None]
        on = {"JAX_PLATFORMS": device, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.process = subprocess.Popen(
            [python, str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "XLA_FLAGS": one if device == "cpu" else "", **on},
            # XLA's settings still allow a second thread; limiting the processors to the number of threads does not.
            preexec_fn=lambda: os.sched_setaffinity(0, processors),
        )
        self.build: float = self._ask({**asdict(case), "cpu_time": cpu_time})["build"]

    def __enter__(self) -> "NumPyro":
        return self

    def __exit__(self, *_: Any) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()

    def slice(self, seconds: float) -> float:
        """Seconds per step, averaged over about `seconds`."""
        return self._ask({"seconds": seconds})["step"]

    def megabytes(self) -> float:
        """Peak resident memory of the child."""
        return self._ask({"memory": True})["megabytes"]

    def _ask(self, question: dict) -> dict:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(question), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"NumPyro's process ended with exit code {self.process.wait()}")
        return json.loads(answer)
