"""Pyro models, one kind of program per file, and the tables that their choices come from.

`MODELS` maps a word of `--model` to its entry (`pathscore.programs.entry`). The other names are imported when they are
first used, so that the command line can read the table without importing torch. `VAE(data_size, latent=…, …)` is a
module whose call `model(x)` is the program: x (B, X), with a plate "data" of size B. A model never mentions gradients
or guides.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pathscore.programs.entry import Listed

if TYPE_CHECKING:
    from models.bnn import BayesianNetwork
    from models.latents import LATENTS
    from models.likelihoods import LIKELIHOODS
    from models.logistic import LogisticRegression
    from models.trunks import ACTIVATIONS, TRUNKS
    from models.vae import PRIORS, VAE

MODELS: dict[str, Listed] = {
    "vae": Listed(
        "Deep latent variable model with L layers of latent variables, drawn top down", "models.entries.vae:PROGRAM"
    ),
    "logistic": Listed(
        "Bayesian logistic regression: weights that all rows share, a label of 0 or 1 for each row",
        "models.entries.logistic:PROGRAM",
    ),
    "bnn": Listed("Bayesian neural network: a classifier whose weights all rows share", "models.entries.bnn:PROGRAM"),
    "bandit": Listed("Bandits side by side, the policy as guide: needs no data", "models.entries.bandit:PROGRAM"),
    "gridworld": Listed(
        "Walk on a grid with rewards, the policy as guide: needs no data", "models.entries.gridworld:PROGRAM"
    ),
}

_HOME = {
    "ACTIVATIONS": "models.trunks",
    "BayesianNetwork": "models.bnn",
    "LATENTS": "models.latents",
    "LIKELIHOODS": "models.likelihoods",
    "LogisticRegression": "models.logistic",
    "PRIORS": "models.vae",
    "TRUNKS": "models.trunks",
    "VAE": "models.vae",
}

__all__ = [
    "ACTIVATIONS",
    "LATENTS",
    "LIKELIHOODS",
    "MODELS",
    "PRIORS",
    "TRUNKS",
    "VAE",
    "BayesianNetwork",
    "LogisticRegression",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'models' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
