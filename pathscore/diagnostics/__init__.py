"""How far to trust a trained guide: draws in ArviZ's schema, diagnostics by name, and a page people can look at.

`to_arviz(model, guide, x)` and `examine(model, guide, x) -> Report` work for any Pyro pair; pages of run directories
are made in `pathscore.reports`. `DIAGNOSTICS` is the table of what is examined, in the order of the page:
adding one is one file in `sections/` with `section(subject) -> Section`, and one entry here. Everything is imported
when it is first used.
"""

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Diagnostic:
    """An entry of `DIAGNOSTICS`: one line of meaning, and its function as "module:name"."""

    name: str
    doc: str
    where: str

    def __call__(self, subject):
        """Section of the page: what this diagnostic finds about a `Subject`."""
        module, _, name = self.where.partition(":")
        return getattr(importlib.import_module(module), name)(subject)


def _entry(name: str, doc: str) -> tuple[str, Diagnostic]:
    return name, Diagnostic(name, doc, f"pathscore.diagnostics.sections.{name}:section")


DIAGNOSTICS: dict[str, Diagnostic] = dict(
    [
        _entry(
            "importance",
            "k-hat, relative ESS, log p(x) and its gap to the ELBO per data point; exact KL where possible",
        ),
        _entry("gaps", "amortisation gap beside approximation gap, guide re-optimised per data point"),
        _entry("chains", "NUTS on a few data points, continuous latents"),
        _entry("calibration", "simulation-based ranks with a simultaneous band; coverage of central intervals"),
        _entry("latent", "active units, KL per unit, aggregate posterior, embedding, traversals"),
        _entry(
            "predictive",
            "ranks and rootogram of a summary, reliability of predicted probabilities; posterior predictive checks",
        ),
        _entry("loo", "PSIS-LOO of programs with global latents, corrected for the guide"),
        _entry("samples", "data, reconstructions, samples"),
    ]
)

_HOME = {
    "Effort": "subject",
    "Report": "report",
    "calibrate": "calibration",
    "examine": "examining",
    "mcmc_to_arviz": "mcmc",
    "to_arviz": "arviz",
}

__all__ = ["DIAGNOSTICS", "Diagnostic"]
__all__ += sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pathscore.diagnostics' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pathscore.diagnostics.{_HOME[name]}"), name)
