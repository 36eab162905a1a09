"""Every example through every part of Pathscore: `outcome(example, part) -> str`, and the table of docs/examples.md.

    python -m examples.walk

An outcome is "works" (with a note where the program runs pass by pass), or the line with which a part refuses the
program. Anything else is raised. Parameters are those after five steps, and sizes are small: whether, not how well.
"""

from __future__ import annotations

import importlib
import io
import math
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO

from examples.autoguides import KINDS
from pathscore import SVI, CompiledELBO, examine, make_elbo, measure, to_arviz
from pathscore.diagnostics.subject import Effort
from pathscore.elbos import ELBOS
from pathscore.errors import PathscoreError
from pathscore.programs.broadcasting import BroadcastingWarning

FILES = (
    *(
        "vae",
        "ssvae",
        "dmm",
        "lda",
        "prodlda",
        "zinb",
        "bnn",
        "gmm_enumerated",
        "gmm_assignments",
        "mixture_loop",
        "hmm",
    ),
    *("air_lite", "regression", "dirichlet_process", "coin", "flow_guide", "sparse_gp", "nested_plates", "handlers"),
    "dictionaries",
)
EXAMPLES = (*FILES, *(f"autoguides.{kind}" for kind in KINDS))
"""Names of examples: a file, or a file and what its `build` varies."""

SUMMED_OUT = ("lda", "gmm_enumerated", "hmm")
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


def built(example: str) -> tuple:
    """Model, guide and arguments of an example."""
    file, _, kind = example.partition(".")
    return importlib.import_module(f"examples.{file}").build(0, *([kind] if kind else []))


def _stepped(example: str, loss: Any, steps: int) -> tuple[SVI, tuple]:
    model, guide, args = built(example)
    svi = SVI(model, guide, "adam", loss)
    losses = [svi.step(*args) for _ in range(steps)]
    assert all(map(math.isfinite, losses)), losses
    return svi, args


def _trained(example: str) -> tuple[SVI, tuple]:
    return _stepped(example, _pyros_loss(example), 5)


def _pyros_loss(example: str) -> Any:
    return (TraceEnum_ELBO if example in SUMMED_OUT else Trace_ELBO)(max_plate_nesting=2)


def _auto(particles: int) -> Callable[[str], str]:
    def step(example: str) -> str:
        _stepped(example, make_elbo("trace", "auto", particles, max_plate_nesting=2), 2)
        return "works"

    return step


def _pyros(example: str) -> str:
    _trained(example)
    return "works"


def _measure(example: str) -> str:
    svi, args = _trained(example)
    found = measure(svi, *args, replicates=4, warmup=1, progress=False)
    return f"works: {len(found.rows)} estimators"


def _to_arviz(example: str) -> str:
    svi, args = _trained(example)
    to_arviz(svi, args, 10, seed=0)
    return "works"


def _examine(example: str) -> str:
    svi, args = _trained(example)
    sections = examine(svi, args, effort=QUICK)
    judged = [s.name for s in sections if any(v.status != "unknown" for v in s.verdicts)]
    return f"works: {', '.join(judged)}"


def _objectives(example: str) -> str:
    """One step of each objective, with `auto` at every site where it takes estimators."""
    works, refused = [], {}
    for name, entry in ELBOS.items():
        estimators = "auto" if entry.credit else None
        try:
            with pyro.get_param_store().scope():
                _stepped(example, make_elbo(name, estimators, entry.particles, max_plate_nesting=2), 2)
            works.append(name)
        except PathscoreError as error:
            assert "\n" not in str(error), error
            refused[name] = str(error)
    if not works:
        return "refused: " + next(iter(refused.values()))
    return f"works: {', '.join(works)}" + (f"; refused: {', '.join(refused)}" if refused else "")


def _compiled(example: str) -> str:
    """Four steps as one graph, from the random stream of four eager ones."""
    losses = {}
    for wrap in (lambda elbo: elbo, lambda elbo: CompiledELBO(elbo, builder=lambda capture, inputs: capture.graph)):
        with pyro.get_param_store().scope():
            model, guide, args = built(example)
            elbo = wrap(_pyros_loss(example))
            svi = SVI(model, guide, "adam", elbo)
            torch.manual_seed(1)
            losses[type(elbo)] = [svi.step(*args) for _ in range(4)]
    eager, compiled = losses.values()
    assert all(abs(a - b) <= 1e-4 * max(1.0, abs(b)) for a, b in zip(compiled, eager, strict=True)), losses
    if elbo.built:
        return "works: one graph"
    return f"runs eagerly: {next(iter(elbo.refused.values()))}"


def _resumed(example: str) -> str:
    """Two steps, saved to bytes, loaded into another run, and two more: the losses of four steps in a row."""
    runs = []
    for stop in (4, 2):
        with pyro.get_param_store().scope():
            model, guide, args = built(example)
            svi = SVI(model, guide, "adam", _pyros_loss(example))
            torch.manual_seed(1)
            found = [svi.step(*args) for _ in range(stop)]
            if stop == 2:
                saved, stream = io.BytesIO(), torch.get_rng_state()
                torch.save(svi.state_dict(), saved)
                model, guide, args = built(example)
                svi = SVI(model, guide, "adam", _pyros_loss(example))
                svi.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True), *args)
                torch.set_rng_state(stream)
                found += [svi.step(*args) for _ in range(2)]
        runs.append(found)
    assert runs[0] == runs[1], runs
    return "works: bit for bit"


PARTS: dict[str, Callable[[str], str]] = {
    "SVI, Pyro's loss": _pyros,
    "auto, K = 1": _auto(1),
    "auto, K = 4": _auto(4),
    "objectives": _objectives,
    "compiled": _compiled,
    "save, resume": _resumed,
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
            found = PARTS[part](example)
        except PathscoreError as error:
            return f"refused: {error}"
    foreign = [w for w in caught if not w.category.__module__.startswith("pathscore")]
    assert not foreign, str(foreign[0].message)
    looped = any(issubclass(w.category, BroadcastingWarning) for w in caught)
    return f"{found}, pass by pass" if looped else found


def table(outcome: Callable[[str, str], str] = outcome) -> str:
    """The table in Markdown, and below it the refusals in full."""
    notes: dict[str, int] = {}
    lines = ["| example | " + " | ".join(PARTS) + " |", "|" + "---|" * (len(PARTS) + 1)]
    for example in EXAMPLES:
        cells = [_cell(outcome(example, part), notes) for part in PARTS]
        lines.append(f"| [{example}](../examples/{example.partition('.')[0]}.py) | " + " | ".join(cells) + " |")
    refusals = [f"{number}. {text.partition(': ')[2]}" for text, number in notes.items()]
    return "\n".join([*lines, "", *refusals])


def _cell(text: str, notes: dict[str, int]) -> str:
    """What works, or a number of a note that says why not."""
    if text.startswith("works"):
        return text
    return f"{text.partition(':')[0]} ({notes.setdefault(text, len(notes) + 1)})"


def written(page: str) -> dict[tuple[str, str], str]:
    """The outcomes that the text of a page holds, by example and part: what `table` wrote, read back."""
    rows, _, notes = page.partition(START)[2].partition(END)[0].partition("\n\n")
    texts = dict(line.split(". ", 1) for line in notes.splitlines())
    found = {}
    for line in rows.splitlines()[2:]:
        example, *cells = line.strip("| ").split(" | ")
        found |= {(_linked(example), part): _read(cell, texts) for part, cell in zip(PARTS, cells, strict=True)}
    return found


def _linked(cell: str) -> str:
    return cell.partition("[")[2].partition("]")[0]


def _read(cell: str, texts: dict[str, str]) -> str:
    """The outcome in full: a cell that ends in the number of a note stands for that note."""
    if cell.startswith("works"):
        return cell
    kind, _, number = cell.rstrip(")").rpartition(" (")
    return f"{kind}: {texts[number]}"


def main() -> None:
    """Write the table into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{START}{table()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
