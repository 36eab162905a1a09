"""CONTRIBUTING's worked example is what it says: under 60 lines, unbiased, and better than the score alone."""

import re
from pathlib import Path

import torch
from proof_programs import Program
from proof_statistics import N, exact_gradient, prove

from pathscore.elbos.site import SiteELBO


def example() -> dict:
    text = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert source.count("\n") < 60
    namespace: dict = {}
    exec(source, namespace)
    return namespace


def test_the_example_estimator_is_unbiased_and_lowers_the_variance():
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        target = exact_gradient(Program("two", "bernoulli"))
        ours, score = (
            prove(Program("two", "bernoulli", N), SiteELBO({"z*": e}), target=target)
            for e in (example()["SelfCritical"](), "score")
        )
    finally:
        torch.set_default_dtype(default)
    assert ours.passes, ours
    assert ours.total_variance < score.total_variance
