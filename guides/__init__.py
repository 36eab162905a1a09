"""Pyro guides, one kind of program per file, and the table that their choice comes from.

`GUIDES[name](data_size, latent=…, …)` takes the keyword arguments of the model. Its call `guide(x)` is the program.
"""

from guides.amortised import AmortizedGuide
from guides.base import LayeredGuide
from guides.factorised import FactorisedGuide

GUIDES: dict[str, type[LayeredGuide]] = {"amortised": AmortizedGuide, "factorised": FactorisedGuide}

__all__ = ["GUIDES", "AmortizedGuide", "FactorisedGuide", "LayeredGuide"]
