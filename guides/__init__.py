"""Pyro guides, one kind of program per file, and the table that their choice comes from.

`GUIDES[name](data_size, latent=…, …)` takes the keyword arguments of the model. Its call `guide(x)` is the program.
`COVARIANCES[name](site, size)` is a guide for weights that all data points share.
"""

from guides.amortised import AmortizedGuide
from guides.base import LayeredGuide
from guides.factorised import FactorisedGuide
from guides.shared import COVARIANCES, DiagonalNormal, FullNormal, SharedNormal
from guides.weights import WeightGuide

GUIDES: dict[str, type[LayeredGuide]] = {"amortised": AmortizedGuide, "factorised": FactorisedGuide}

__all__ = [
    "COVARIANCES",
    "GUIDES",
    "AmortizedGuide",
    "DiagonalNormal",
    "FactorisedGuide",
    "FullNormal",
    "LayeredGuide",
    "SharedNormal",
    "WeightGuide",
]
