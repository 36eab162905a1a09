"""Every example through every part of Pathscore: `outcome(example, part) -> str`, and the table of docs/examples.md.

    python -m examples.walk

An outcome is "works" (with a note where the program runs pass by pass), or the line with which a part refuses the
program. Anything else is raised. Parameters are those after five steps, and sizes are small: whether, not how well.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pyro
from pyro.infer import Trace_ELBO, TraceEnum_ELBO

from pathscore import SVI, examine, make_elbo, measure, to_arviz
from pathscore.diagnostics.subject import Effort
from pathscore.errors import PathscoreError
from pathscore.programs.broadcasting import BroadcastingWarning

EXAMPLES = (
    "vae",
    "ssvae",
    "dmm",
    "lda",
    "bnn",
    "gmm_enumerated",
    "gmm_assignments",
    "air_lite",
    "regression",
    "dirichlet_process",
)
SUMMED_OUT = ("ssvae", "lda", "gmm_enumerated")
"""Examples that are trained with their discrete sites summed out."""

QUICK = Effort(
    points=16,
    draws=40,
    check_draws=9,
    replicates=20,
    rank_draws=9,
    gap_points=2,
    gap_steps=3,
    chain_points=0,
)
PAGE = Path(__file__).parents[1] / "docs" / "examples.md"
START, END = "<!-- table -->\n", "\n<!-- end -->"


def _stepped(example: ModuleType, loss: Any, steps: int) -> tuple[SVI, tuple]:
    model, guide, args = example.build(0)
    svi = SVI(model, guide, "adam", loss)
    losses = [svi.step(*args) for _ in range(steps)]
    assert all(map(math.isfinite, losses)), losses
    return svi, args


def _trained(example: ModuleType) -> tuple[SVI, tuple]:
    summed = example.__name__.rpartition(".")[2] in SUMMED_OUT
    return _stepped(example, (TraceEnum_ELBO if summed else Trace_ELBO)(max_plate_nesting=2), 5)


def _auto(particles: int) -> Callable[[ModuleType], str]:
    def step(example: ModuleType) -> str:
        _stepped(example, make_elbo("trace", "auto", particles, max_plate_nesting=2), 2)
        return "works"

    return step


def _pyros(example: ModuleType) -> str:
    _trained(example)
    return "works"


def _measure(example: ModuleType) -> str:
    svi, args = _trained(example)
    found = measure(svi, *args, replicates=4, warmup=1, progress=False)
    return f"works: {len(found.rows)} estimators"


def _to_arviz(example: ModuleType) -> str:
    svi, args = _trained(example)
    to_arviz(svi, args, 10, seed=0)
    return "works"


def _examine(example: ModuleType) -> str:
    svi, args = _trained(example)
    sections = examine(svi, args, effort=QUICK)
    judged = [s.name for s in sections if any(v.status != "unknown" for v in s.verdicts)]
    return f"works: {', '.join(judged)}"


PARTS: dict[str, Callable[[ModuleType], str]] = {
    "SVI, Pyro's loss": _pyros,
    "auto, K = 1": _auto(1),
    "auto, K = 4": _auto(4),
    "measure": _measure,
    "to_arviz": _to_arviz,
    "examine": _examine,
}


@cache
def outcome(example: str, part: str) -> str:
    """What comes of a part of Pathscore on an example, in one line."""
    with pyro.get_param_store().scope(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = PARTS[part](importlib.import_module(f"examples.{example}"))
        except PathscoreError as error:
            return f"refused: {error}"
    looped = any(issubclass(w.category, BroadcastingWarning) for w in caught)
    return f"{found}, pass by pass" if looped else found


def table() -> str:
    """The table in Markdown, and below it the refusals in full."""
    notes: dict[str, int] = {}
    lines = ["| example | " + " | ".join(PARTS) + " |", "|" + "---|" * (len(PARTS) + 1)]
    for example in EXAMPLES:
        cells = [_cell(outcome(example, part), notes) for part in PARTS]
        lines.append(f"| [{example}](../examples/{example}.py) | " + " | ".join(cells) + " |")
    refusals = [f"{number}. {text.removeprefix('refused: ')}" for text, number in notes.items()]
    return "\n".join([*lines, "", *refusals])


def _cell(text: str, notes: dict[str, int]) -> str:
    if not text.startswith("refused"):
        return text
    return f"refused ({notes.setdefault(text, len(notes) + 1)})"


def main() -> None:
    """Write the table into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{START}{table()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
