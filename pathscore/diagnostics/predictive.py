"""Does data from the model look like the data? Ranks and a rootogram of one summary of each data point.

`check(model, guide, args) -> Predictive`. The summary T(x) (how many pixels are on; for real data the mean) of each
held-out data point is ranked among the summaries of data drawn from the model alone, p(z) p(x | z), each data point
against draws of its own. If the model is right the ranks are independent and uniform: a test. The same summary of
posterior
predictive draws is kept for the picture only: the guide has seen x, so its ranks crowd around ½ even when all is
well. Densities over 0/1 values and smoothed histograms mislead silently and are not drawn.

References: Kleiber & Zeileis 2016, Visualizing count data regressions using rootograms; Säilynoja, Johnson, Martin &
Vehtari 2025, Recommendations for visual predictive checks in Bayesian workflow.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from pathscore.diagnostics import uniformity
from pathscore.diagnostics.blocks import BLOCK_ELEMENTS
from pathscore.diagnostics.layout import Layout
from pathscore.diagnostics.programs import guide_values, prepare, simulate
from pathscore.diagnostics.seeding import seeded


@dataclass(frozen=True)
class Predictive:
    """Summaries T of N held-out data and of S draws of the model for each; `pit` uniform if the model is right."""

    statistic: str
    observed: np.ndarray  # (N,)
    prior: np.ndarray  # (S, N)
    posterior: np.ndarray  # (S, N)
    pit: np.ndarray  # (N,)
    shared: tuple[str, ...] = ()  # latents that several data have in common: their ranks are then no independent ones

    @property
    def p_value(self) -> float:
        """Of "held-out data have the model's distribution of T"; without meaning where data share a latent."""
        return uniformity.p_value(self.pit)

    @property
    def deviation(self) -> float:
        """Largest distance of the ranks' empirical CDF from uniform."""
        return uniformity.deviation(self.pit)


def check(model: Callable, guide: Callable, args: tuple, *, draws: int = 99, seed: int | None = None) -> Predictive:
    """Draw each data point `draws` times from prior and posterior predictive and compare.

    Raises UsageError for several observed sites or none.
    """
    with torch.no_grad(), seeded(seed):
        layout = prepare(model, guide, args)
        site = layout.observed()
        x = layout.observed_values[site.name].double()  # (*plates, *event)
        binary = bool(((x == 0) | (x == 1)).all())
        statistic = Statistic("pixels on" if binary else "mean", torch.Size(site.shape[: len(site.plates)]).numel())
        step = max(1, BLOCK_ELEMENTS // layout.elements)
        prior, posterior = np.empty((2, draws, statistic.rows))
        for i in range(0, draws, step):
            block = slice(i, min(i + step, draws))
            prior[block], posterior[block] = _block(model, guide, layout, args, statistic, block.stop - i)
    observed = statistic(x[None])[0].numpy()
    pit = randomised_rank(observed, prior, np.random.default_rng(seed))
    return Predictive(statistic.name, observed, prior, posterior, pit, tuple(layout.shared))


@dataclass(frozen=True)
class Statistic:
    """T: (S, *plates, *event) → (S, N), the sum over the event ("pixels on") or its mean."""

    name: str
    rows: int  # N

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        flat = value.double().reshape(len(value), self.rows, -1)
        return flat.sum(-1) if self.name == "pixels on" else flat.mean(-1)


def _block(model, guide, layout: Layout, args, statistic: Statistic, draws: int) -> tuple[torch.Tensor, torch.Tensor]:
    """T of prior draws and of posterior draws, (S, N) each."""
    name = layout.observed().name
    latents = guide_values(guide, layout, draws, args)
    prior, posterior = (simulate(model, layout, draws, args, values)[name] for values in ({}, latents))
    return statistic(prior), statistic(posterior)


def randomised_rank(observed: np.ndarray, drawn: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(rank + u)/(S + 1) of observed (N,) among its own draws (S, N), ties broken at random: uniform under the null."""
    less, equal = (drawn < observed).sum(0), (drawn == observed).sum(0)
    return (less + generator.integers(0, equal + 1) + generator.uniform(size=len(observed))) / (len(drawn) + 1)
