"""Which estimator a run should have: `choose_job(job) -> Recommendation` afterwards, `chosen(…)` at its start.

A run that was started with `--estimator "auto(seconds=20)"` measures for so long before its first step, at its first
parameters. What was found stands in its config.json, so that it is continued, and run again, without measuring.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pathscore.config import PYROS, Config, by_pattern
from pathscore.data import Arguments, binarize
from pathscore.elbos import ELBOS, kl_weighted
from pathscore.elbos.plan import closest
from pathscore.errors import UsageError
from pathscore.estimators import Auto, make_estimator
from pathscore.evaluation.validation import evaluating
from pathscore.gradients.recommend import recommend
from pathscore.gradients.recommendation import Recommendation
from pathscore.gradients.replicates import Pair
from pathscore.runs.measuring import settings_of, used
from pathscore.svi.pairs import UntrainedWarning


def choose_job(job: Any, args: Arguments, **settings: Any) -> Recommendation:
    """Race the estimators of a run at its present parameters, on a batch as it trains on.

    job: a `pathscore.runs.assembly.Assembly`. settings: as for `recommend`.

    Raises: UsageError for an objective that has a gradient of its own.
    """
    require_estimators(job.config)
    svi = job.svi
    with svi.scope(), evaluating(svi):
        today = used(job, Pair(svi.model, svi.guide, args))
        settings = {"today": today, "compiled": svi.compiled is not None, **settings_of(job.config), **settings}
        return recommend(svi.model, svi.guide, *args, **settings)


def require_estimators(config: Config) -> None:
    """Raise UsageError for an objective that takes no estimators."""
    if ELBOS[config.elbo].credit is None:
        able = ", ".join(entry.name for entry in ELBOS.values() if entry.credit)
        raise UsageError(f"--elbo {config.elbo} has a gradient of its own, and no estimator to choose: use {able}")


def measures(config: Config) -> dict[str, float]:
    """Site pattern → seconds, where the configuration says auto(seconds=…)."""
    words = {site: word for site, word in by_pattern(config.estimator or PYROS).items() if word != PYROS}
    made = {site: make_estimator(word) for site, word in words.items() if word.startswith(Auto.name)}
    return {site: e.seconds for site, e in made.items() if isinstance(e, Auto) and e.seconds is not None}


def chosen(
    config: Config, model: Callable, guide: Callable, args: Arguments, compiled: bool
) -> tuple[Config, Recommendation | None]:
    """The configuration with measured estimators in place of auto(seconds=…), and what was found; None: none asked for.

    Sites that are named otherwise keep their estimators. args: a batch as the run trains on.
    """
    asked = measures(config)
    if not asked:
        return config, None
    require_estimators(config)
    words = by_pattern(config.estimator or PYROS)
    plain = {site: Auto.name if site in asked else word for site, word in words.items()}
    spec = {site: word for site, word in plain.items() if word != PYROS}
    if config.kl_weight != 1:
        model, guide = (kl_weighted(program, config.kl_weight) for program in (model, guide))
    names = [name for name in Pair(model, guide, args).latents if closest(words, name) in asked]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrainedWarning)  # a run begins with untrained parameters
        found = recommend(
            *(model, guide, *args),
            seconds=max(asked.values()),
            sites=names,
            today=spec,
            compiled=compiled,
            seed=config.seed,
            **settings_of(config),
        )
    return replace(config, estimator=found.word), found


def batch_of(job: Any, size: int | None = None) -> Arguments:
    """Data as a step of the run has them, held-out ones where data points have latents of their own."""
    config = job.config
    data, mode = (job.held_out, "none") if job.local else (job.training, config.binarize or "none")
    return rows(data, size or config.batch_size, mode)


def rows(args: Arguments, size: int | None, mode: str) -> Arguments:
    """So many rows of each tensor, the first one binarised."""
    cut = tuple(tensor[: size or 1] for tensor in args)
    return (binarize(cut[0], mode), *cut[1:]) if cut else cut


def last_line(found: Recommendation) -> str:
    """The flag to paste into the command of a run."""
    if found.spec == found.today:
        return "the run's own estimators stay"
    return f"add to the command of the run: {found.flags}"
