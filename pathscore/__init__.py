"""Pathscore: gradient estimators, chosen per sample site, for any Pyro program.

The public names are listed in `EXPORTS` and imported when they are first used, so that `import pathscore` and the help
text of the command line do not import torch.
"""

import importlib
from typing import Any

EXPORTS: dict[str, tuple[str, ...]] = {
    "pathscore.config": ("Config", "between", "option"),
    "pathscore.diagnostics": ("examine", "mcmc_to_arviz", "to_arviz"),
    "pathscore.elbos": ("ELBOS", "KLWeight", "kl_weighted", "make_elbo"),
    "pathscore.compiling.compiled_elbo": ("CompiledELBO",),
    "pathscore.elbos.dreg": ("DReG",),
    "pathscore.elbos.free_bits": ("FreeBitsELBO",),
    "pathscore.elbos.importance": ("ImportanceELBO",),
    "pathscore.elbos.site": ("SiteELBO",),
    "pathscore.elbos.vimco": ("VIMCO",),
    "pathscore.elbos.wake_sleep": ("WakeSleep",),
    "pathscore.errors": ("DataError", "NumericsError", "PathscoreError", "RunDirError", "UsageError"),
    "pathscore.estimators": (
        *("ARM", "ESTIMATORS", "NVIL", "REBAR", "RELAX", "RLOO", "Auto", "DeltaMethod", "DiSARM", "Enumerate"),
        *("Estimator", "Flipout", "GroupBaseline", "GroupNormalised", "Gumbel", "LocalReparameterisation"),
        *("LocalExpectation", "MeasureValued", "MuProp", "Pathwise", "ReinMax", "Score", "ScoreAverage"),
        *("StickingTheLanding", "StraightThrough", "StraightThroughGumbel", "SumAndSample", "UnorderedSet"),
    ),
    "pathscore.evaluation": ("evaluate",),
    "pathscore.gradients": ("measure", "recommend"),
    "pathscore.svi.optimiser": ("OptimizerSpec",),
    "pathscore.svi": ("SVI",),
    "pathscore.programs.entry": ("Program",),
    "pathscore.reports": ("compare", "diagnose"),
    "pathscore.runs.job": ("train",),
    "pathscore.runs.opening": ("open_run",),
    "pathscore.runs.saving": ("load", "save"),
    "pathscore.runs.training": ("Training", "fit"),
}
_HOME = {name: module for module, names in EXPORTS.items() for name in names}

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pathscore' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
