"""Exact references for programs small enough to sum out: ELBO, gradient, evidence, posterior, K-sample bound."""

from pathscore.exact.enumeration import STATE_LIMIT, Table, tabulate
from pathscore.exact.quantities import Posterior, elbo, gradient, importance_bound, log_evidence, posterior

__all__ = ["STATE_LIMIT", "Posterior", "Table", "elbo", "gradient", "importance_bound", "log_evidence", "posterior",
           "tabulate"]
