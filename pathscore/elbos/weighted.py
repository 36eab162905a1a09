"""Our objectives with importance weights as entries of the table `ELBOS`.

Weights are formed per data point before a plate's scale, so batches, subsampling, several layers and discrete latents
are right in all of them; what a program must not do is refused at its first step (weight_plates.py).
"""

from functools import partial
from typing import Any

from pathscore.elbos.dreg import DReG
from pathscore.elbos.entry import Objective
from pathscore.elbos.importance import ImportanceELBO
from pathscore.elbos.vimco import FILLS, VIMCO
from pathscore.elbos.wake_sleep import WakeSleep


def _entry(name: str, kind: Any, doc: str, **rules: Any) -> Objective:
    return Objective(name=name, doc=doc, kind=kind, **{"make": kind, "credit": "weights", "particles": 5, **rules})


LEAVE_ONE_OUT = "what a particle adds to the bound of the others"

WEIGHTED: tuple[Objective, ...] = (
    _entry("iwae", ImportanceELBO, "importance-weighted bound L_K, weights formed per data point"),
    _entry(
        "vimco",
        VIMCO,
        f"L_K with a leave-one-out signal at score-function sites; --fill {', '.join(FILLS)}",
        min_particles=2,
        signal=LEAVE_ONE_OUT,
        options=("fill",),
    ),
    _entry(
        "ovis",
        VIMCO,
        "L_K with the leave-one-out signal that is optimal for a small effective sample size",
        make=partial(VIMCO, fill="none"),
        min_particles=2,
        signal=LEAVE_ONE_OUT,
    ),
    _entry(
        "dreg",
        DReG,
        "L_K, doubly reparameterised at pathwise sites: the guide's signal does not fade with K",
        path="it reparameterises twice, and a discrete site has no path: use vimco",
        options=("alpha",),
    ),
    _entry("vr", ImportanceELBO, "Rényi bound of order --alpha, weights formed per data point", options=("alpha",)),
    _entry(
        "wake-sleep",
        WakeSleep,
        "reweighted wake-sleep, weights formed per data point; --insomnia is the share of the wake phase",
        credit=None,
        min_particles=2,
        options=("insomnia",),
    ),
)
