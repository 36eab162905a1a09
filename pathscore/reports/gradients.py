"""The section with the table that `pathscore gradients` wrote into the run directory, and pictures of it."""

import json
import math
from functools import partial
from pathlib import Path

from pathscore.diagnostics.subject import Picture, Section, Table
from pathscore.gradients.pictures import intervals, trade_off
from pathscore.gradients.records import ENOUGH

TABLE = "gradients.json"
COLUMNS = (
    ("name", "estimator", "{}"),
    ("unbiased", "unbiased by theory", "{}"),
    ("max_abs_z", "largest |z| of bias", "{:.1f}"),
    ("detectable_bias", "detectable bias", "{:.2g}"),
    ("total_variance", "total variance", "{:,.3g}"),
    ("variance_se", "± s.e.", "{:,.2g}"),
    ("relative_variance", "relative variance", "{:,.4g}"),
    ("snr", "signal ÷ noise", "{:.2g}"),
    ("cosine", "cosine to exact", "{:.2f}"),
    ("evaluations", "model evaluations", "{:g}"),
    ("milliseconds", "ms per gradient", "{:.2g}"),
)
INTRO = (
    "Each estimator's gradient at the run's final parameters: its bias as a z-score (significant beyond about ± 4.5), "
    "its variance, and its cost."
)


def section(path: Path) -> Section:
    """The table and its pictures, or how to make them if they are missing."""
    found = read_table(path / TABLE)
    rows = found["estimators"]
    if not rows:
        hint = f"Not measured yet: run `pathscore gradients {path}` and then `pathscore diagnose {path}` again."
        return Section("gradients", "How the gradient got through the sampling step", hint)
    columns = [c for c in COLUMNS if any(row.get(c[0]) is not None for row in rows)]
    lines = [_shown(row, found.get("own")) for row in rows]
    body = [[_cell(row.get(key), form) for key, _, form in columns] for row in lines]
    return Section(
        "gradients",
        "How the gradient got through the sampling step",
        INTRO,
        tables=[Table([title for _, title, _ in columns], body)],
        pictures=_pictures(found),
    )


def _shown(row: dict, own: str | None) -> dict:
    """The row, marked if it is the run's own, and without a test of bias where too few gradients were drawn for one."""
    name = row.get("name")
    row = {**row, "name": f"{name} (this run)"} if name is not None and name == own else row
    few = row.get("replicates", ENOUGH) < ENOUGH
    return {**row, "max_abs_z": "too few replicates"} if few else row


def read_rows(path: Path) -> list[dict]:
    """The rows of gradients.json; empty if it is missing or unreadable."""
    return read_table(path)["estimators"]


def read_table(path: Path) -> dict:
    """gradients.json, its rows under "estimators" also where they are at the top level or under "rows"."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    table = found if isinstance(found, dict) else {"estimators": found}
    rows = table.get("estimators", table.get("rows"))
    rows = rows if isinstance(rows, list) else []
    return {**table, "estimators": [row for row in rows if isinstance(row, dict)]}


def _pictures(table: dict) -> list[Picture]:
    """Those whose numbers the file has: files of earlier versions hold no quantiles."""
    pictures = []
    if any(row.get("total_variance") and row.get("milliseconds") for row in table["estimators"]):
        alt = "Each estimator a point, ± 2 standard errors. Dotted lines: equal variance × time."
        pictures.append(Picture("trade-off", "Variance against cost", alt, partial(trade_off, table=table)))
    if any(row.get("quantiles") for row in table["estimators"]):
        alt = (
            "Draws of the coordinate with the largest gradient. Thin lines: 99 % of the draws; thick lines: half of "
            "them; dots: means."
        )
        pictures.append(Picture("draws", "Draws of one coordinate", alt, partial(intervals, table=table)))
    return pictures


def _cell(value, form: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return form.format(value) if isinstance(value, int | float) or form == "{}" else str(value)
