"""Faults planted in the package, one for each promise whose test brings in a bad input: the named test must fail.

The test runs in a session of its own with the fault in place, and must end as failed; without it, it passes in the
session that this test is part of. `docs/promises.md` names the fault beside the promise.
"""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

TESTS = Path(__file__).resolve().parents[1]


def silent(place):
    """A check that never finds anything."""
    return lambda patch: patch.setattr(place, lambda *args, **kwargs: None)


def fewer_particles(patch):
    from pathscore.elbos import ELBOS

    for name in ("vimco", "ovis", "wake-sleep"):
        patch.setitem(ELBOS, name, replace(ELBOS[name], min_particles=1))


def wrong_list(patch):
    from pathscore.data import DATASETS

    patch.setitem(DATASETS, "fashion-mnist", replace(DATASETS["fashion-mnist"], offline=True))


def whole_lines(patch):
    from pathscore.runs import metrics

    def every_line(path):
        return [{"step": i + 1} for i, _ in enumerate(path.read_text().splitlines())]

    patch.setattr(metrics.read_metrics, "__code__", every_line.__code__)


def all_finite(patch):
    patch.setattr("pathscore.svi.svi.math", SimpleNamespace(**{**vars(math), "isfinite": lambda value: True}))


def everything_fits(patch):
    patch.setattr("pathscore.svi.state.differences", lambda *args: [])


FAULTS = {
    12: ("svi/test_svi_refusals.py", "test_a_parameter_without_gradient_is_named", silent("pathscore.svi.svi.check")),
    15: ("elbos/test_objectives_refusals.py", "test_too_few_particles", fewer_particles),
    18: ("data/test_data.py", "test_a_wrong_layout_is_refused_by_name", silent("pathscore.data.values._check_layout")),
    20: ("data/test_network.py", "test_a_missing_set_without_network_is_refused_in_two_seconds", wrong_list),
    33: (
        "runs/test_checkpoint.py",
        "test_a_state_that_does_not_fit_is_refused_by_name_and_changes_nothing",
        everything_fits,
    ),
    38: ("runs/test_training.py", "test_a_partial_last_line_and_later_steps_are_dropped", whole_lines),
    39: ("svi/test_svi_refusals.py", "test_a_poisoned_batch", all_finite),
    42: (
        "command/test_cli.py",
        "test_a_step_that_cannot_fit_into_memory_is_refused_with_the_estimate",
        lambda patch: patch.setattr("pathscore.runs.memory.GIGABYTE", 1e6),
    ),
}


class Plant:
    """A plugin of a session: the fault, and which tests failed."""

    def __init__(self, fault):
        self.fault, self.failed, self.ran = fault, [], 0

    @pytest.fixture(autouse=True)
    def planted(self, monkeypatch):
        self.fault(monkeypatch)

    def pytest_runtest_logreport(self, report):
        self.ran += report.when == "call"
        self.failed += [report.nodeid] * (report.when == "call" and report.failed)


@pytest.mark.parametrize("promise", FAULTS)
def test_the_fault_is_caught_by_the_test_of_its_promise(promise):
    file, name, fault = FAULTS[promise]
    plant = Plant(fault)
    words = [str(TESTS / file), "-k", name, "-q", "-x", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
    code = pytest.main(words, plugins=[plant])
    assert plant.ran and plant.failed and code == pytest.ExitCode.TESTS_FAILED, (code, plant.ran)
