"""CONTRIBUTING is true: its map is that of the tree, and each of its examples is enough for what it adds."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pyro
import pytest
import torch
from layout import FLOORS
from proof_programs import Program
from proof_statistics import N, exact_gradient, prove

from guides import AmortizedGuide
from models import LATENTS, VAE
from pathscore import ELBOS, SVI, examine, make_elbo
from pathscore.command import cli
from pathscore.data import DATASETS
from pathscore.diagnostics import DIAGNOSTICS, Diagnostic, Effort
from pathscore.elbos.site import SiteELBO

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def source(heading: str) -> str:
    """The block under a heading."""
    (section,) = re.findall(rf"^### {heading}\n(.*?)(?=^##)", TEXT, re.DOTALL | re.MULTILINE)
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert block.count("\n") < 60
    return block


def example(heading: str) -> dict:
    """What the block under a heading defines."""
    namespace: dict = {}
    exec(source(heading), namespace)
    return namespace


def bits(rows=12, width=6):
    return (torch.rand(rows, width, generator=torch.Generator().manual_seed(0)) < 0.4).float()


def test_the_map_is_that_of_the_tree():
    rows = re.findall(
        r"^\| `([a-z_/]+)` \| (.+) \|$", TEXT.split("<!-- rooms -->")[1].split("<!-- end")[0], re.MULTILINE
    )
    places = {"entries": "models/entries", "guides": "guides", "models": "models"}
    rooms = [places.get(name, f"pathscore/{name}") for floor in FLOORS for name in floor if name != "errors"]
    assert [place for place, _ in rows] == rooms
    for place, meaning in rows:
        docstring = (ROOT / place / "__init__.py").read_text(encoding="utf-8").lstrip('"').split('"""')[0]
        assert " ".join(docstring.split()).startswith(f"{meaning}."), place


def test_every_file_that_is_named_is_there():
    named = set(
        re.findall(r"`((?:pathscore|models|guides|tests|docs|command|runs|svi|elbos)/[\w/]+\.(?:py|md))`", TEXT)
    )
    assert len(named) > 12
    for name in named:
        assert (ROOT / name).is_file() or (ROOT / "pathscore" / name).is_file(), name


@pytest.mark.usefixtures("float64")
def test_the_estimator_is_unbiased_and_lowers_the_variance():
    target = exact_gradient(Program("two", "bernoulli"))
    ours, score = (
        prove(Program("two", "bernoulli", N), SiteELBO({"z*": e}), target=target)
        for e in (example("An estimator")["SelfCritical"](), "score")
    )
    assert ours.passes, ours
    assert ours.total_variance < score.total_variance


def test_the_program_is_one_file(tmp_path, capsys):
    (tmp_path / "coin.py").write_text(source("A program"))
    words = ["--model", f"{tmp_path}/coin.py:COIN", "--steps", "5", "--eval-samples", "5", "--quiet"]
    assert cli.main(["train", *words, "--estimator", "disarm", "--out", str(tmp_path / "run")]) == 0, (
        capsys.readouterr()
    )


def test_the_latent_family_is_one_class(monkeypatch):
    monkeypatch.setitem(LATENTS, "gumbel", example("A latent family")["Gumbel"])
    sizes = {"latent": "gumbel", "layers": (2,), "hidden": (4,)}
    svi = SVI(VAE(6, **sizes), AmortizedGuide(6, **sizes), "adam")
    losses = [svi.step(bits()) for _ in range(5)]
    assert all(torch.isfinite(torch.tensor(losses)))


def test_the_objective_is_one_entry(monkeypatch):
    half = example("An objective")["HALF"]
    monkeypatch.setitem(ELBOS, half.name, half)
    sizes = {"latent": "bernoulli", "layers": (2,), "hidden": (4,)}
    svi = SVI(VAE(6, **sizes), AmortizedGuide(6, **sizes), "adam", make_elbo(half.name, num_particles=5))
    assert svi.step(bits()) > 0


def test_the_data_set_is_one_entry(monkeypatch, tmp_path, capsys):
    wine = example("A data set")["WINE"]
    monkeypatch.setitem(DATASETS, wine.name, wine)
    assert DATASETS["wine"].load(tmp_path, False).holds == wine.holds
    from pathscore.config.choices import CHOICES

    monkeypatch.setitem(CHOICES, "dataset", (*CHOICES["dataset"], "wine"))
    words = ["--dataset", "wine", "--likelihood", "normal", "--steps", "3", "--eval-samples", "5", "--quiet"]
    assert cli.main(["train", *words, "--out", str(tmp_path / "run")]) == 0, capsys.readouterr().err


def test_the_diagnostic_is_one_file_and_one_entry(monkeypatch):
    module = ModuleType("spread")
    exec(source("A diagnostic"), vars(module))
    monkeypatch.setitem(sys.modules, "spread", module)
    monkeypatch.setitem(DIAGNOSTICS, "spread", Diagnostic("spread", "spread of the guide", "spread:section"))
    sizes = {"layers": (2,), "hidden": (4,)}
    with pyro.get_param_store().scope():
        (found,) = examine(
            VAE(6, **sizes), AmortizedGuide(6, **sizes), bits(), names=["spread"], effort=Effort(draws=20)
        )
    assert 0.1 < found.numbers["z1"] < 10


def test_the_verb_is_one_entry(monkeypatch, capsys):
    module = ModuleType("hello")
    exec(source("A verb"), vars(module))
    monkeypatch.setitem(sys.modules, "hello", module)
    monkeypatch.setitem(cli.VERBS, "hello", cli.Verb("say hello", "hello:main"))
    assert cli.main(["hello", "world"]) == 0
    assert capsys.readouterr().out == "hello world\n"
