"""A disk that fills up loses nothing but the file that did not fit: whichever write fails, and also the pictures'.

Each write of a run directory fails in turn, after half of its bytes. The run ends with exit code 3 and one line, no
temporary file stays, everything written before is whole, and the run can be taken up again. Planted: a writer that
leaves its half file.
"""

import errno
import json
from pathlib import Path

import pytest

from pathscore.command import cli
from pathscore.runs import measuring, rundir
from pathscore.runs.metrics import read_metrics

RUN = ["train", "--steps", "3", "--layers", "2", "--hidden", "4", "--eval-samples", "5", "--out"]
WRITES = ("config.json", "metrics.jsonl", "summary.json", "training.png", "reconstructions.png", "samples.png")
FILES = (*WRITES, "gradients.json", "gradients.png")


@pytest.fixture
def full(monkeypatch):
    """`full(n)`: the n-th write of a whole file finds no space."""
    real, made = Path.write_bytes, []

    def limit(n: int | None) -> None:
        made.clear()

        def write(self, data):
            made.append(self.name.removesuffix(".tmp"))
            if len(made) - 1 != n:
                return real(self, data)
            real(self, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", write)

    monkeypatch.setattr(measuring, "SHORT", ())  # the run's own estimator is enough
    limit.made = made
    return limit


@pytest.mark.parametrize("n", range(len(FILES)))
def test_every_write_may_fail(n, full, tmp_path, capsys):
    run = tmp_path / "run"
    full(n)
    assert cli.main([*RUN, str(run)]) == 3
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and f"cannot write {run / FILES[n]}: No space left on device" in err
    assert not list(run.glob("*.tmp")), "a temporary file stayed"
    for name in FILES[:n]:
        assert (run / name).stat().st_size > 0
    assert not (run / FILES[n]).exists()
    if n > FILES.index("summary.json"):
        assert json.loads((run / "summary.json").read_text())["steps"] == 3
        assert "test ELBO" in out, "the result was known and not printed"
    full(None)
    if n:  # without its configuration there is no run yet
        assert cli.main(["train", "--resume", str(run)]) == 0
        assert all((run / name).exists() for name in FILES) and read_metrics(run / "metrics.jsonl")


def test_the_list_of_writes_is_complete(full, tmp_path):
    full(None)
    assert cli.main([*RUN, str(tmp_path / "run")]) == 0
    assert tuple(full.made) == FILES


def test_a_writer_that_leaves_its_half_file_is_caught(full, monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
    full(FILES.index("training.png"))
    assert cli.main([*RUN, str(tmp_path / "run")]) == 3
    assert list((tmp_path / "run").glob("*.tmp"))
    monkeypatch.undo()
    rundir.sweep(tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.tmp"))
