"""Exact references for programs small enough to sum out: ELBO, gradient, evidence, posterior, K-sample bound.

`exact.gaussian` computes them in closed form for linear-Gaussian programs.
"""

from pathscore.exact import gaussian
from pathscore.exact.accuracy import QuadratureWarning
from pathscore.exact.enumeration import STATE_LIMIT, Table, count_states, tabulate
from pathscore.exact.particles import importance_bound
from pathscore.exact.quantities import Posterior, elbo, gradient, log_evidence, posterior

__all__ = [
    "STATE_LIMIT",
    "Posterior",
    "QuadratureWarning",
    "Table",
    "count_states",
    "elbo",
    "gaussian",
    "gradient",
    "importance_bound",
    "log_evidence",
    "posterior",
    "tabulate",
]
