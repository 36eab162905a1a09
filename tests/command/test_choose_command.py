"""The verb `choose`, and runs that measure before their first step."""

import json

import pytest

from pathscore.command.cli import main

RUN = "train --steps 20 --hidden 16 --eval-samples 2 --quiet --latent bernoulli --layers 4"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A short run with four bits and the score function."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    assert main([*RUN.split(), "--estimator", "score", "--out", str(path)]) == 0
    return path


def test_a_run_is_told_what_to_use(run_dir, tmp_path, capsys):
    file = tmp_path / "chosen.json"
    capsys.readouterr()
    assert main(f"choose {run_dir} --seconds 4 --batch-size 16 --json {file}".split()) == 0
    said = capsys.readouterr().out
    kept = json.loads(file.read_text())
    assert kept["today"] == {"z1": "score"} and kept["elbo"] == "trace"
    assert "z1" in said and "today" in said
    assert kept["spec"] != kept["today"]
    assert f'add to the command of the run: --estimator "{kept["spec"]["z1"]}"' in said


def test_compiled_steps_are_measured_where_asked_for(run_dir, monkeypatch, capsys):
    asked = {}
    monkeypatch.setattr("pathscore.runs.choosing.recommend", lambda *args, **settings: asked.update(settings))
    for word, compiled in (("auto", False), ("on", True)):
        with pytest.raises(AttributeError):  # nothing was found to be printed
            main_of_verb([str(run_dir), "--compile", word])
        assert asked["compiled"] is compiled
        assert asked["today"] == {"z1": "score"} and asked["particles"] == 1


def main_of_verb(words):
    from pathscore.command.choose import main as choose

    return choose(words)


def test_a_run_measures_first_and_keeps_what_it_found(tmp_path, capsys):
    path = tmp_path / "run"
    words = [*RUN.replace(" --quiet", "").split(), "--estimator", "auto(seconds=2)", "--out", str(path)]
    assert main(words) == 0
    said = capsys.readouterr().out
    used = json.loads((path / "config.json").read_text())["estimator"]
    assert "auto" not in used and "95 % interval" in said
    assert f"estimator {used}" in said
    assert main(["train", "--resume", str(path), "--steps", "25", "--quiet"]) == 0
    assert json.loads((path / "config.json").read_text())["estimator"] == used


def test_errors_are_one_line(run_dir, capsys):
    assert main(["choose"]) == 0 and "usage: pathscore choose" in capsys.readouterr().out
    assert main(["choose", str(run_dir), "--compile", "perhaps"]) == 2
    assert "--compile must be auto, on, off" in capsys.readouterr().err
    words = [*RUN.split(), "--elbo", "rws", "--estimator", "auto(seconds=-1)", "--out", str(run_dir.parent / "no")]
    assert main(words) == 2
    assert "seconds of auto must be positive" in capsys.readouterr().err
