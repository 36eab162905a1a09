"""The gradient lab: bias, variance and cost of gradient estimators, measured on any Pyro program.

`measure(model, guide, x, estimators=["score", "rloo"]) -> Comparison`; print it, or `.save("gradients.json")`.
"""

from pathscore.gradients.measure import measure
from pathscore.gradients.recommend import recommend
from pathscore.gradients.results import Comparison, Row
from pathscore.gradients.toy import TOYS, Toy, make_toy

__all__ = ["TOYS", "Comparison", "Row", "Toy", "make_toy", "measure", "recommend"]
