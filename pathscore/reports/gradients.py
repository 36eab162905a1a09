"""The section with the table and picture that `pathscore gradients` wrote into the run directory."""

import base64
import json
import math
from pathlib import Path

from pathscore.diagnostics.subject import Section, Table

TABLE, PICTURE = "gradients.json", "gradients.png"
COLUMNS = (
    ("name", "estimator", "{}"),
    ("unbiased", "unbiased by theory", "{}"),
    ("max_abs_z", "largest |z| of bias", "{:.1f}"),
    ("detectable_bias", "detectable bias", "{:.2g}"),
    ("total_variance", "total variance", "{:,.3g}"),
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
    """The table and the inlined picture, or how to make them if they are missing."""
    rows = read_rows(path / TABLE)
    if not rows:
        hint = f"Not measured yet: run `pathscore gradients {path}` and then `pathscore diagnose {path}` again."
        return Section("gradients", "How the gradient got through the sampling step", hint)
    columns = [c for c in COLUMNS if any(row.get(c[0]) is not None for row in rows)]
    body = [[_cell(row.get(key), form) for key, _, form in columns] for row in rows]
    return Section(
        "gradients",
        "How the gradient got through the sampling step",
        INTRO,
        tables=[Table([title for _, title, _ in columns], body)],
        images=_images(path / PICTURE),
    )


def read_rows(path: Path) -> list[dict]:
    """The rows of gradients.json, at the top level or under "estimators" or "rows"; empty if missing or unreadable."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    rows = found.get("estimators", found.get("rows")) if isinstance(found, dict) else found
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _cell(value, form: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return form.format(value) if isinstance(value, int | float) or form == "{}" else str(value)


def _images(path: Path) -> list[tuple[str, str]]:
    """(title, base64 PNG) of a picture file."""
    try:
        data = path.read_bytes()
    except OSError:
        return []
    return [("Gradient estimators compared", base64.b64encode(data).decode())] if data.startswith(b"\x89PNG") else []
