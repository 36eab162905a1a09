"""Pyro's tutorial programs through every part: each works, or is refused in one line by name; the table is current."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples import walk

ROOT = Path(walk.__file__).parents[1]


@pytest.mark.parametrize("part", walk.PARTS)
@pytest.mark.parametrize("example", walk.EXAMPLES)
def test_each_part_works_on_each_example_or_refuses_it_in_one_line_by_name(example, part):
    found = walk.outcome(example, part)
    assert "\n" not in found and len(found) < 400
    if found.startswith("refused"):
        assert re.search(r"'\w+'", found) and re.search(r": (add|use|put|take|write|name|observe) ", found), found
    else:
        assert found.startswith("works")


def test_every_file_is_an_example():
    files = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__", "walk"}
    assert files == set(walk.EXAMPLES)


def test_the_table_is_current():
    page = walk.PAGE.read_text(encoding="utf-8")
    assert page.partition(walk.START)[2].partition(walk.END)[0] == walk.table(), "run python -m examples.walk"


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
