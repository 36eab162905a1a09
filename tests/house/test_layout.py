"""The house keeps its shape: imports run downwards, without circles, and no file lies loose."""

import shutil
from pathlib import Path

import pytest
from layout import FLOORS, LOOSE, PACKAGES, circle, climbs, imports_of, modules, room

ROOT = Path(__file__).resolve().parents[2]


def test_every_import_goes_down():
    assert climbs(imports_of(ROOT)) == []


def test_no_circle_of_modules():
    assert circle(imports_of(ROOT)) == []


def test_no_file_lies_loose():
    assert {path.stem for path in (ROOT / "pathscore").glob("*.py")} == LOOSE


def test_every_room_has_a_floor():
    rooms = {room(name) for name in modules(ROOT)} - {"pathscore", "__main__"}
    assert rooms == {name for names in FLOORS for name in names}


def test_every_room_of_the_engine_has_its_tests():
    engine = {path.name for path in (ROOT / "pathscore").iterdir() if (path / "__init__.py").is_file()}
    assert engine <= {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}


@pytest.mark.parametrize(
    ("where", "line", "caught"),
    [
        ("pathscore/svi/state.py", "from pathscore.runs import job", "pathscore.svi.state → pathscore.runs.job"),
        ("pathscore/elbos/plan.py", "import models.vae", "pathscore.elbos.plan → models.vae"),
        (
            "pathscore/estimators/score.py",
            "def late():\n    from pathscore.elbos.site import SiteELBO\n    return SiteELBO",
            "pathscore.estimators.score → pathscore.elbos.site",
        ),
    ],
)
def test_a_planted_climb_is_caught(tmp_path, where, line, caught):
    with copied(tmp_path, where).open("a") as file:
        file.write(f"\n{line}\n")
    assert climbs(imports_of(tmp_path)) == [caught]


def test_a_planted_circle_in_one_room_is_caught(tmp_path):
    with copied(tmp_path, "pathscore/svi/parameters.py").open("a") as file:
        file.write("\nfrom pathscore.svi.state import restore\n")
    assert {"pathscore.svi.parameters", "pathscore.svi.state"} <= set(circle(imports_of(tmp_path)))


def copied(folder: Path, where: str) -> Path:
    """A file of a copy of the source tree."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package)
    return folder / where
