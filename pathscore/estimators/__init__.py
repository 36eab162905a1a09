"""Gradient estimators: the table, and the words that name them.

`ESTIMATORS` maps a name to its class; `parse` reads the command line's form (`"disarm"`,
`"z1=disarm,z2=gumbel(temperature=0.3)"`).  Adding an estimator is one class and one line in the table: the list, the
legality matrix, the docs and the proofs are generated from it.
"""

from __future__ import annotations

import re

from pathscore.errors import UsageError, unknown
from pathscore.estimators.aliases import ALIASES
from pathscore.estimators.antithetic import ARM, DiSARM
from pathscore.estimators.auto import Auto, choose
from pathscore.estimators.base import Estimator, Site
from pathscore.estimators.baselines import Baseline, GroupMean, LeaveOneOut, MovingAverage, NeuralBaseline
from pathscore.estimators.calls import call, read_call
from pathscore.estimators.control_variates import REBAR, RELAX, MuProp
from pathscore.estimators.delta import DeltaMethod
from pathscore.estimators.measure_valued import MeasureValued
from pathscore.estimators.pathwise import Pathwise, StickingTheLanding
from pathscore.estimators.row_noise import Flipout, LocalReparameterisation
from pathscore.estimators.score import NVIL, RLOO, GroupBaseline, GroupNormalised, Score, ScoreAverage
from pathscore.estimators.straight_through import Gumbel, ReinMax, StraightThrough, StraightThroughGumbel
from pathscore.estimators.summation import Enumerate, LocalExpectation
from pathscore.estimators.without_replacement import SumAndSample, UnorderedSet

ESTIMATORS: dict[str, type[Estimator]] = {
    cls.name: cls
    for cls in (
        Auto,
        Pathwise,
        StickingTheLanding,
        Score,
        ScoreAverage,
        NVIL,
        RLOO,
        ARM,
        DiSARM,
        REBAR,
        RELAX,
        MuProp,
        Gumbel,
        StraightThrough,
        StraightThroughGumbel,
        ReinMax,
        Enumerate,
        LocalExpectation,
        UnorderedSet,
        SumAndSample,
        MeasureValued,
        DeltaMethod,
        Flipout,
        LocalReparameterisation,
        GroupBaseline,
        GroupNormalised,
    )
}


def make_estimator(spec: str | Estimator | type[Estimator]) -> Estimator:
    """An estimator from its name, its name with options (`gumbel(temperature=0.3)`), its class, or itself.

    Raises:
        UsageError: unknown name or option.
    """
    if isinstance(spec, Estimator):
        return spec
    if isinstance(spec, type) and issubclass(spec, Estimator):
        return spec()
    if not isinstance(spec, str):
        raise UsageError(
            f"--estimator: {spec!r} is no estimator: give its name, as in 'disarm' or "
            "'z1=disarm,z2=rloo', or an instance of a subclass of pathscore.estimators.Estimator"
        )
    name, options = read_call(spec, "--estimator")
    name = ALIASES.get(name.lower(), name)
    if name not in ESTIMATORS:
        raise unknown("estimator", name, ESTIMATORS)
    return call(ESTIMATORS[name], name, options, "--estimator")


def parse(text: str) -> dict[str, Estimator]:
    """`"disarm"` → {"*": DiSARM()}; `"z1=disarm,z2=rloo"` → {"z1": DiSARM(), "z2": RLOO()}.

    Raises:
        UsageError: unknown names, a part that is neither `name` nor `site=name`, or two estimators for one pattern.
    """
    parsed: dict[str, Estimator] = {}
    for part in re.split(r",(?![^()]*\))", text):  # commas outside parentheses
        match = re.fullmatch(r"\s*(?:([^=()\s]+)\s*=\s*)?([^=\s][^=]*?(?:\(.*\))?)\s*", part)
        if match is None:
            raise UsageError(f"--estimator: cannot read '{part}': write NAME, or SITE=NAME,SITE=NAME")
        pattern = match[1] or "*"
        if pattern in parsed:
            whose = f"site '{pattern}'" if match[1] else "every site"
            raise UsageError(f"--estimator: two estimators for {whose} in '{text}': name one, or SITE=NAME,SITE=NAME")
        parsed[pattern] = make_estimator(match[2])
    return parsed


__all__ = [
    "ARM",
    "ESTIMATORS",
    "NVIL",
    "REBAR",
    "RELAX",
    "RLOO",
    "Auto",
    "Baseline",
    "DeltaMethod",
    "DiSARM",
    "Enumerate",
    "Estimator",
    "Flipout",
    "GroupBaseline",
    "GroupMean",
    "GroupNormalised",
    "Gumbel",
    "LeaveOneOut",
    "LocalExpectation",
    "LocalReparameterisation",
    "MeasureValued",
    "MovingAverage",
    "MuProp",
    "NeuralBaseline",
    "Pathwise",
    "ReinMax",
    "Score",
    "ScoreAverage",
    "Site",
    "StickingTheLanding",
    "StraightThrough",
    "StraightThroughGumbel",
    "SumAndSample",
    "UnorderedSet",
    "choose",
    "make_estimator",
    "parse",
]
