"""Pyro's tutorial programs through every part: each works, or is refused in one line by name; the table is current."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from examples import walk

ROOT = Path(walk.__file__).parents[1]
WRITTEN = walk.written(walk.PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("part", walk.PARTS)
@pytest.mark.parametrize("example", walk.EXAMPLES)
def test_each_part_works_on_each_example_or_refuses_it_in_one_line_by_name(example, part):
    found = walk.outcome(example, part)
    assert "\n" not in found and len(found) < 400
    if found.startswith("refused"):
        assert re.search(r"'\w+'", found), found
        assert re.search(r": (add|use|put|take|write|name|observe|measure) ", found), found
    else:
        assert found.startswith(("works", "runs eagerly: "))
    assert found == WRITTEN[example, part], "docs/examples.md is out of date: run python -m examples.walk"


def test_every_file_is_an_example():
    files = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__", "walk"}
    assert files == {name.partition(".")[0] for name in walk.EXAMPLES}


def test_a_resume_that_loses_the_optimiser_is_caught(monkeypatch):
    from pathscore.svi import SVI

    kept = SVI.load_state_dict

    def loses(self, state, *args):
        kept(self, state, *args)
        self.optim.torch_optim = type(self.optim.torch_optim)(self.optim.torch_optim.param_groups)

    monkeypatch.setattr(SVI, "load_state_dict", loses)
    walk.outcome.cache_clear()
    with pytest.raises(AssertionError):
        walk.outcome("coin", "save, resume")
    walk.outcome.cache_clear()


@pytest.mark.parametrize("fault", [KeyError("w"), UserWarning("a foreign line")])
def test_a_crash_or_a_foreign_line_is_caught(monkeypatch, fault):
    def part(example):
        if isinstance(fault, Warning):
            warnings.warn(fault, stacklevel=1)
            return "works"
        raise fault

    monkeypatch.setitem(walk.PARTS, "planted", part)
    walk.outcome.cache_clear()
    with pytest.raises((KeyError, AssertionError)):
        walk.outcome("coin", "planted")
    walk.outcome.cache_clear()


def test_the_table_has_every_example_and_part_and_is_what_walk_writes():
    page = walk.PAGE.read_text(encoding="utf-8")
    assert set(WRITTEN) == {(example, part) for example in walk.EXAMPLES for part in walk.PARTS}
    assert page.partition(walk.START)[2].partition(walk.END)[0] == walk.table(lambda *cell: WRITTEN[cell])


def test_an_example_runs_as_a_script():
    done = subprocess.run(
        [sys.executable, "examples/gmm_enumerated.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and "after 500 steps" in done.stdout, done.stderr
