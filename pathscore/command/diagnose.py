"""The verb `diagnose RUN_DIR`, and what `--report` adds to a training run.

`main(words) -> exit code`. torch is imported only after the words have been read.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from pathscore.command.progress import progress_lines, threads
from pathscore.command.words import asked
from pathscore.config.options import FILLED, between, option

USAGE = """usage: pathscore diagnose RUN_DIR [flags]

Check how far to trust a trained guide. Writes posterior.nc, diagnostics.json, pictures and report.html.

"""


@dataclasses.dataclass(frozen=True)
class DiagnoseRequest:
    """Amount of work, and which parts"""

    only: str | None = option(None, "diagnostics NAME,NAME,… (see below)", check=FILLED, none="all")
    points: int = option(1000, "held-out data points", check=between(2, 10**7))
    draws: int = option(500, "draws of the guide per data point, kept in posterior.nc", check=between(2, 10**6))
    gap_points: int = option(48, "data points whose variational parameters are re-optimised", check=between(1, 10**6))
    chain_points: int = option(3, "data points for NUTS, 0 for none", check=between(0, 10**4))
    chain_draws: int = option(150, "draws of each NUTS chain, after as many warm-up steps", check=between(4, 10**6))
    replicates: int = option(1000, "simulated data sets for the calibration check", check=between(10, 10**7))
    seed: int = option(0, "seed of all draws", check=between(0, 2**63 - 1))
    threads: int = option(1, "number of threads", check=between(1, 1024))
    quiet: bool = option(False, "print only the path of the page")
    debug: bool = option(False, "show tracebacks, also of a diagnostic that cannot be computed")


def main(words: Sequence[str]) -> int:
    """`pathscore diagnose RUN_DIR [flags]`."""
    from pathscore.diagnostics import DIAGNOSTICS

    table = "\n".join(f"  {d.name:12} {d.doc}" for d in DIAGNOSTICS.values())
    given = asked(words, DiagnoseRequest, USAGE, below=f"\n\ndiagnostics:\n{table}")
    if given is None:
        return 0
    request, directories = given
    report(directories[0], request)
    return 0


def report(run_dir: Any, request: DiagnoseRequest | None = None) -> None:
    """Diagnose a run directory and print the path of the page, as `--report` does at the end of training."""
    request = request or DiagnoseRequest()
    from pathscore.diagnostics import Effort
    from pathscore.reports import diagnose

    names = [f.name for f in dataclasses.fields(Effort) if hasattr(request, f.name)]
    effort = Effort().with_(**{name: getattr(request, name) for name in names})
    only = request.only.split(",") if request.only else None
    progress = progress_lines(request.quiet)
    with threads(request.threads):
        page = diagnose(run_dir, names=only, effort=effort, strict=request.debug, progress=progress)
    print(page)
