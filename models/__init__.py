"""Pyro models, one kind of program per file, and the tables that their choices come from.

`MODELS[name](data_size, latent=…, …)` is a module whose call `model(x)` is the program: x (B, X), B in a plate named
"data". A model never mentions gradients or guides.
"""

from models.latents import LATENTS
from models.likelihoods import LIKELIHOODS
from models.trunks import ACTIVATIONS, TRUNKS
from models.vae import PRIORS, VAE

MODELS = {"vae": VAE}

__all__ = ["ACTIVATIONS", "LATENTS", "LIKELIHOODS", "MODELS", "PRIORS", "TRUNKS", "VAE"]
