"""The verb `gradients`: `pathscore gradients --latent bernoulli --size 6`, or `pathscore gradients RUN_DIR`.

`main(words) -> exit code`. It measures on a toy with an exact gradient, or at the parameters of a trained run, and
replaces the run's gradients.json and gradients.png.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathscore.command.words import describe, read_words
from pathscore.config.options import FILLED, NOT_NEGATIVE, Check, between, option
from pathscore.errors import RunDirError

USAGE = """usage: pathscore gradients [RUN_DIR] [flags]

Measure bias, variance and cost of gradient estimators, on a toy problem or at the parameters of a trained run.
"""
PROBABILITY = Check("must lie between 0 and 1", lambda value: 0 <= value <= 1)


@dataclasses.dataclass(frozen=True)
class Common:
    """Toy and run"""

    estimators: str | None = option(
        None, "NAME,NAME,… ; or SPEC;SPEC;… with one name per site: z1=disarm,z2=rloo", check=FILLED, none="all"
    )
    replicates: int | None = option(None, "gradients per estimator", check=between(2, 10**8), none="auto")
    particles: int | None = option(None, "particles per gradient, K", check=between(1, 10**6), none="auto")
    elbo: str | None = option(None, "an objective that takes estimators", choices="elbo", none="auto")
    warmup: int = option(
        200, "training steps of learned baselines and control variates, which are then frozen", check=NOT_NEGATIVE
    )
    seed: int = option(0, "seed of the toy and of the draws", check=between(0, 2**63 - 1))
    json: str | None = option(None, "also write the table to this file", check=FILLED)
    picture: str | None = option(None, "file for a picture: variance against cost, and histograms", check=FILLED)
    debug: bool = option(False, "show tracebacks")


@dataclasses.dataclass(frozen=True)
class ToyRequest(Common):
    """The toy"""

    latent: str = option("bernoulli", "family of the toy's latent variables", check=FILLED)
    size: int | None = option(None, "number of latent variables of the toy", check=between(1, 10_000), none="auto")
    classes: int = option(3, "classes of each categorical variable", check=between(2, 1000))
    cost: str = option("elbo", "elbo, or square: E[(b − p₀)²], common in papers on discrete gradients")
    target: float = option(0.499, "p₀ of --cost square", check=PROBABILITY)


@dataclasses.dataclass(frozen=True)
class RunRequest(Common):
    """A run"""

    of: str = option(
        "sites",
        "gradient with respect to the parameters of the latent sites (sites) or to the guide's weights (weights)",
    )
    data: int = option(8, "number of held-out data points", check=between(1, 10**6))


def main(words: Sequence[str]) -> int:
    """The verb `gradients`: measure, print the table, and write the files."""
    if "-h" in words or "--help" in words:
        print(f"{USAGE}\non a toy:\n{describe(ToyRequest)}\n\nof a run:\n{describe(RunRequest)}")
        return 0
    directory = words[0] if words and not words[0].startswith("-") else None
    comparison, request = _of_run(directory, words[1:]) if directory else _of_toy(words)
    print(f"{comparison.title}\n\n{comparison}")
    _write(comparison, request.json, request.picture)
    return 0


def _of_toy(words: Sequence[str]) -> tuple[Any, Common]:
    request, _ = read_words(words, ToyRequest)
    from pathscore.gradients import make_toy, measure
    from pathscore.gradients.lab import read_estimators

    toy = make_toy(
        request.latent,
        request.size,
        classes=request.classes,
        cost=request.cost,
        target=request.target,
        seed=request.seed,
    )
    found = measure(
        toy.model,
        toy.guide,
        estimators=read_estimators(request.estimators),
        replicates=request.replicates or 40_000,
        particles=request.particles or 1,
        elbo=request.elbo or "trace",
        warmup=request.warmup,
        seed=request.seed,
        title=toy.title,
    )
    return found, request


def _of_run(directory: str, words: Sequence[str]) -> tuple[Any, Common]:
    request, _ = read_words(words, RunRequest)
    from pathscore.gradients.lab import read_estimators
    from pathscore.runs.measuring import JSON, PICTURE, measure_job
    from pathscore.runs.opening import open_run

    run = open_run(directory)
    settings = {"particles": request.particles, "elbo": request.elbo}
    found = measure_job(
        run.job,
        tuple(t[: request.data] for t in run.job.examined) if run.job.local else run.job.examined,
        read_estimators(request.estimators),
        replicates=request.replicates or {"sites": 2000}.get(request.of, 200),
        of=request.of,
        warmup=request.warmup,
        seed=request.seed,
        **{name: value for name, value in settings.items() if value is not None},
    )
    files = {"json": run.path / JSON, "picture": run.path / PICTURE}
    return found, dataclasses.replace(request, **{n: str(p) for n, p in files.items() if getattr(request, n) is None})


def _write(comparison: Any, json: str | None, picture: str | None) -> None:
    from pathscore.gradients.pictures import save

    for path, write in ((json, comparison.save), (picture, lambda p: save(comparison, p))):
        if path is None:
            continue
        try:
            write(path)
        except (OSError, ValueError) as error:  # matplotlib refuses an unknown suffix with a ValueError
            raise RunDirError(f"cannot write {Path(path)}: {getattr(error, 'strerror', None) or error}") from None
        print(f"written: {path}")
