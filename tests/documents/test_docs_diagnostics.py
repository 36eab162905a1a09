"""docs/diagnostics.md is true: its tables are the tables of the code, its examples run, its names exist."""

import re
from pathlib import Path

import pyro
import torch
from diagnostics_cases import belief_net

from pathscore import diagnostics
from pathscore.diagnostics import DIAGNOSTICS
from pathscore.diagnostics.rules import RULES

TEXT = (Path(__file__).parents[2] / "docs" / "diagnostics.md").read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_code():
    for d in DIAGNOSTICS.values():
        assert f"| `{d.name}` | {d.doc} |" in TEXT, d.name
    for rule in RULES.values():
        assert f"| {rule.title} | {rule.about} | {rule.threshold()} |" in TEXT, rule.title


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    model, guide, x = belief_net(rows=5)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    names = {"model": model, "guide": guide, "x": x}
    first = [line for line in blocks[0].splitlines() if "(x, y)" not in line]
    exec(
        "\n".join(first).replace("draws=1000", "draws=20").replace("examine(model, guide, x)", "QUICK"),
        {**names, "QUICK": quick(model, guide, x)},
    )
    assert "Gap between log p(x) and ELBO" in capsys.readouterr().out


def quick(model, guide, x):
    return diagnostics.examine(model, guide, x, names=["importance"], effort=diagnostics.Effort(draws=30))


def test_public_names_exist():
    for name in diagnostics.__all__:
        assert getattr(diagnostics, name) is not None
    assert len(pyro.get_param_store()) == 0 and torch.get_default_dtype() == torch.float32
