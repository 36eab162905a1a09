"""The distribution: what it installs, what importing it costs and changes; and nothing says where it comes from."""

import ast
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pyro
import pytest
import torch

import pathscore

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_wheel_holds_the_three_packages_and_every_folder_of_them():
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == ["models", "guides", "pathscore"]
    for package in packages:
        for folder in {path.parent for path in (ROOT / package).rglob("*.py")}:
            assert (folder / "__init__.py").is_file(), f"{folder} is no package"


OWN = {"pathscore", "models", "guides"}
DISTRIBUTIONS = {"pyro": "pyro-ppl", "sklearn": "scikit-learn", "PIL": "pillow", "arviz_stats": "arviz-stats"}
"""Import name → the name that it is installed by, where they differ."""

NOT_IMPORTED = {
    "pytest-xdist": "the option -n of pytest",
    "ipykernel": "runs the notebooks",
    "jupyterlab": "shows the notebooks",
    "ipywidgets": "progress bars in notebooks",
    "pyarrow": "pandas writes .parquet with it",
    "ruff": "a command",
    "pyright": "a command",
}
"""Extras that serve by being installed."""


def imported(*folders: str) -> set[str]:
    """The distributions that the files of some folders import, at any depth of the code."""
    names: set[str] = set()
    for path in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add((node.module or "").split(".")[0])
    beside = {path.stem for path in (ROOT / "tests").rglob("*.py")}  # on the path of the tests
    local = beside | {path.name for path in ROOT.iterdir() if path.is_dir()}
    return {DISTRIBUTIONS.get(name, name) for name in names - set(sys.stdlib_module_names) - local}


def declared(extra: str | None = None) -> set[str]:
    """The distributions that pyproject.toml asks for, always or for an extra."""
    project = PROJECT["project"]
    lines = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    return {re.split(r"[^\w.-]", line)[0] for line in lines} - OWN


def test_what_is_declared_is_imported_and_the_other_way_round():
    assert imported("pathscore", "models", "guides") == declared()
    everywhere = imported("pathscore", "models", "guides", "tests", "benchmarks", "examples", "docs")
    extras = set().union(*map(declared, PROJECT["project"]["optional-dependencies"]))
    assert extras - everywhere - set(NOT_IMPORTED) - {"optax"} == set()  # optax comes to NumPyro's own optimisers
    assert everywhere - extras - declared() == {"jax"}  # NumPyro brings it


def test_a_dependency_that_nothing_imports_is_noticed(monkeypatch):
    """The planted faults: one too many, and one too few."""
    for lines in ([*PROJECT["project"]["dependencies"], "arviz-plots"], PROJECT["project"]["dependencies"][1:]):
        monkeypatch.setitem(PROJECT["project"], "dependencies", lines)
        with pytest.raises(AssertionError):
            test_what_is_declared_is_imported_and_the_other_way_round()


def test_no_file_of_the_repository_is_ignored_and_so_left_out_of_the_wheel():
    listing = ["git", "ls-files", "--ignored", "--cached", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    assert done.stdout == ""


def test_the_version_is_said_once_in_effect():
    assert PROJECT["project"]["version"] == pathscore.__version__ == importlib.metadata.version("pathscore")


def test_the_console_script_is_the_command_line():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="pathscore")
    assert script.load() is sys.modules["pathscore.command.cli"].main


@pytest.mark.parametrize("name", pathscore.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(pathscore, name) is not None


def test_every_estimator_is_a_public_name():
    assert {cls.__name__ for cls in pathscore.ESTIMATORS.values()} <= set(pathscore.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = pathscore.nonsense


def test_importing_the_engine_brings_neither_torch_nor_models_nor_guides():
    code = "import sys, pathscore; sys.exit(bool({'torch', 'pyro', 'models', 'guides'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=600).returncode == 0


def test_importing_every_module_of_the_engine_brings_no_models_and_changes_no_setting():
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "pathscore").rglob("*.py")
        if path.name != "__main__.py"
    )
    code = f"""
import importlib, os, signal, sys, torch, pyro, pyro.distributions
def settings():
    return (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), os.getcwd(),
            torch.distributions.Distribution._validate_args, pyro.settings.get(), torch.initial_seed(),
            torch.get_rng_state().sum().item(), [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
            dict(os.environ), len(pyro.get_param_store()))
before = settings()
for module in {modules!r}:
    importlib.import_module(module)
assert settings() == before, [pair for pair in zip(before, settings()) if pair[0] != pair[1]]
assert not {{"models", "guides"}} & set(sys.modules), "the engine imports models or guides"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_a_setting_that_an_import_changes_is_noticed():
    """What `conftest.fresh_start` compares around every test sees each of these."""
    import conftest

    before, folder, on_end = conftest._globals(), os.getcwd(), signal.getsignal(signal.SIGTERM)
    changes = [
        (lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
        (lambda: pyro.enable_validation(False), lambda: pyro.enable_validation(True)),
        (lambda: torch.set_num_threads(2), lambda: torch.set_num_threads(before["threads"])),
        (lambda: os.chdir("/"), lambda: os.chdir(folder)),
        (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), lambda: signal.signal(signal.SIGTERM, on_end)),
        (lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True)),
    ]
    for change, back in changes:
        change()
        assert conftest._globals() != before
        back()
    assert conftest._globals() == before


def test_no_file_names_where_packages_are_downloaded_from():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    hosts = re.compile("|".join(["pypi" + r"\.org", "python" + "hosted", "download" + r"\.pytorch", "index" + "-url"]))
    for name in tracked:
        path = ROOT / name
        if path.is_file() and path.suffix in (".py", ".toml", ".md", ".lock", ".txt", ".cfg", ""):
            assert not hosts.search(path.read_text(encoding="utf-8", errors="ignore")), name
