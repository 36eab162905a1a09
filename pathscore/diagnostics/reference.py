"""A second opinion on a few data points: NUTS chains of the model, laid beside the guide.

`nuts(model, guide, args) -> Reference`: for continuous latents, several chains started at draws of the guide; R-hat and
effective sample size of the chains by ArviZ, and for each latent coordinate how far the guide's mean is from the
chains' (in posterior standard deviations) and how its standard deviation compares. The chains' own R-hat says whether
the comparison may be believed.

References: Hoffman & Gelman 2014, The No-U-Turn Sampler; Vehtari et al. 2021, Rank-normalization, folding, and
localization: an improved R-hat.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import init_to_value

from pathscore.diagnostics.programs import draw, prepare
from pathscore.diagnostics.seeding import seeded
from pathscore.errors import UsageError

RHAT = 1.1
"""Chains with a larger R-hat haven't mixed. The usual 1.01 needs longer chains than a page can wait for: with 150 draws
the largest R-hat of fifty coordinates of chains that have mixed is about 1.05."""


@dataclass(frozen=True)
class Reference:
    """Chains against the guide; arrays over all latent coordinates of all rows, (M,)."""

    rhat: np.ndarray
    ess: np.ndarray
    shift: np.ndarray  # (guide mean − chain mean) / chain standard deviation
    scale: np.ndarray  # guide standard deviation / chain standard deviation
    chains: int
    draws: int
    divergences: int

    @property
    def mixed(self) -> bool:
        """Whether every coordinate's chains agree."""
        return bool((self.rhat < RHAT).all())


def nuts(
    model: Callable,
    guide: Callable,
    args: tuple,
    *,
    chains: int = 2,
    warmup: int = 150,
    draws: int = 150,
    max_tree_depth: int = 6,
    seed: int | None = None,
) -> Reference:
    """Run NUTS on the rows of `args` jointly and compare each latent coordinate with 1 000 draws of the guide.

    Raises UsageError for a model with discrete latents, without any, or with a subsampled plate.
    """
    with seeded(seed):
        layout = prepare(model, guide, args)
        latents = layout.of("latent")
        if not latents or any(site.discrete for site in latents):
            raise UsageError(
                "NUTS needs continuous latents: for discrete ones compare with enumeration or a longer importance run"
            )
        if layout.subsampled:
            raise UsageError("NUTS needs all the data at once: this program draws a minibatch in a subsampled plate")
        with torch.no_grad():
            drawn, starts = (draw(model, guide, layout, count, args).values for count in (1000, chains))
        runs = [
            _chain(
                model,
                args,
                {s.name: starts[s.name][c].reshape(s.raw_shape) for s in latents},
                warmup,
                draws,
                max_tree_depth,
            )
            for c in range(chains)
        ]
    samples = {
        s.name: np.stack([run.get_samples()[s.name].reshape(draws, -1).numpy() for run in runs]) for s in latents
    }
    found = np.concatenate(list(samples.values()), -1)  # (chains, draws, M)
    q = torch.cat([drawn[s.name].detach().reshape(1000, -1) for s in latents], 1).numpy()  # (1000, M)
    divergences = sum(len(d) for run in runs for d in run.diagnostics().get("divergences", {}).values())
    return compare(found, q, divergences)


def _chain(model, args, start: dict[str, torch.Tensor], warmup: int, draws: int, depth: int) -> MCMC:
    kernel = NUTS(model, init_strategy=init_to_value(values=start), max_tree_depth=depth)
    run = MCMC(kernel, num_samples=draws, warmup_steps=warmup, disable_progbar=True)
    run.run(*args)
    return run


def compare(chains: np.ndarray, q: np.ndarray, divergences: int = 0) -> Reference:
    """Chains (C, S, M) against guide draws (L, M)."""
    from arviz_stats.base.array import array_stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant chains: R-hat is NaN, which `mixed` reads as not mixed
        rhat = np.asarray(array_stats.rhat(chains, chain_axis=0, draw_axis=1))
        ess = np.asarray(array_stats.ess(chains, chain_axis=0, draw_axis=1))
    flat = chains.reshape(-1, chains.shape[-1])
    spread = np.maximum(flat.std(0), 1e-12)
    chain_count, draws = chains.shape[:2]
    shift = (q.mean(0) - flat.mean(0)) / spread
    return Reference(rhat, ess, shift, q.std(0) / spread, chain_count, draws, divergences)
