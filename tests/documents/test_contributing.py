"""CONTRIBUTING's worked example is what it says: under 60 lines, unbiased, and better than the score alone."""

import re
from pathlib import Path

import pytest
from proof_programs import Program
from proof_statistics import N, exact_gradient, prove

from pathscore.elbos.site import SiteELBO


def example() -> dict:
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert source.count("\n") < 60
    namespace: dict = {}
    exec(source, namespace)
    return namespace


@pytest.mark.usefixtures("float64")
def test_the_example_estimator_is_unbiased_and_lowers_the_variance():
    target = exact_gradient(Program("two", "bernoulli"))
    ours, score = (
        prove(Program("two", "bernoulli", N), SiteELBO({"z*": e}), target=target)
        for e in (example()["SelfCritical"](), "score")
    )
    assert ours.passes, ours
    assert ours.total_variance < score.total_variance
