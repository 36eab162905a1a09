"""Does data from the model look like the data? Ranks and a rootogram of one summary of each data point.

`check(model, guide, args, site) -> Predictive`. The summary T(x) (the number of ones of 0/1 data; else the mean) of
each data point is ranked among the summaries of data drawn from the model alone, p(z) p(x | z), each data point against
draws of its own. If the model is right the ranks are independent and uniform: a test. The same summary of posterior
predictive draws is kept for the picture only: the guide has seen x, so its ranks crowd around ½ even when all is well.
Densities over 0/1 values and smoothed histograms mislead silently and are not drawn.

`summaries(model, guide, args, site) -> Summaries` is for latents that all the data share: there is one data set, and
its mean, standard deviation, least and largest value are compared with those of data sets drawn from the posterior
predictive. The guide has seen the data, so that the p-values are conservative.

References: Gelman, Meng & Stern 1996, Posterior predictive assessment of model fitness via realized discrepancies;
Kleiber & Zeileis 2016, Visualizing count data regressions using rootograms; Säilynoja, Johnson, Martin & Vehtari 2025,
Recommendations for visual predictive checks in Bayesian workflow.
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


def check(
    model: Callable, guide: Callable, args: tuple, name: str | None = None, *, draws: int = 99, seed: int | None = None
) -> Predictive:
    """Draw each data point `draws` times from prior and posterior predictive and compare.

    name: the observed site, where there are several. Raises UsageError for a model without one.
    """
    with torch.no_grad(), seeded(seed):
        layout = prepare(model, guide, args)
        site = layout.observed(name)
        x = layout.observed_values[site.name].double()  # (*plates, *event)
        binary = bool(((x == 0) | (x == 1)).all())
        statistic = Statistic(
            "number of ones" if binary else "mean", torch.Size(site.shape[: len(site.plates)]).numel()
        )
        step = max(1, BLOCK_ELEMENTS // layout.elements)
        prior, posterior = np.empty((2, draws, statistic.rows))
        for i in range(0, draws, step):
            block = slice(i, min(i + step, draws))
            prior[block], posterior[block] = _block(model, guide, layout, args, site.name, statistic, block.stop - i)
    observed = statistic(x[None])[0].numpy()
    pit = randomised_rank(observed, prior, np.random.default_rng(seed))
    return Predictive(statistic.name, observed, prior, posterior, pit, tuple(layout.shared))


@dataclass(frozen=True)
class Statistic:
    """T: (S, *plates, *event) → (S, N), the sum over the event ("number of ones") or its mean."""

    name: str
    rows: int  # N

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        flat = value.double().reshape(len(value), self.rows, -1)
        return flat.sum(-1) if self.name == "number of ones" else flat.mean(-1)


def _block(
    model, guide, layout: Layout, args, name: str, statistic: Statistic, draws: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """T of prior draws and of posterior draws, (S, N) each."""
    latents = guide_values(guide, layout, draws, args)
    prior, posterior = (simulate(model, layout, draws, args, values)[name] for values in ({}, latents))
    return statistic(prior), statistic(posterior)


def randomised_rank(observed: np.ndarray, drawn: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(rank + u)/(S + 1) of observed (N,) among its own draws (S, N), ties broken at random: uniform under the null."""
    less, equal = (drawn < observed).sum(0), (drawn == observed).sum(0)
    return (less + generator.integers(0, equal + 1) + generator.uniform(size=len(observed))) / (len(drawn) + 1)


SUMMARIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda x: x.mean(-1),
    "standard deviation": lambda x: x.std(-1),
    "smallest": lambda x: x.amin(-1),
    "largest": lambda x: x.amax(-1),
}
"""Summaries of a whole data set, (S, n) → (S,); of 0/1 data the mean alone."""


@dataclass(frozen=True)
class Summaries:
    """Summaries of the data, and of S data sets drawn from the posterior predictive: name → number, (S,)."""

    observed: dict[str, float]
    drawn: dict[str, np.ndarray]

    @property
    def p_value(self) -> dict[str, float]:
        """Two-sided posterior predictive p-value of each summary: 2 min(P(T* ≤ T), P(T* ≥ T)), from S draws."""
        return {name: _two_sided(self.observed[name], drawn) for name, drawn in self.drawn.items()}

    @property
    def distance(self) -> dict[str, float]:
        """|T − mean of T*| in standard deviations of T*, for each summary."""
        spread = {name: max(float(drawn.std()), 1e-12) for name, drawn in self.drawn.items()}
        return {name: abs(self.observed[name] - float(self.drawn[name].mean())) / spread[name] for name in spread}

    @property
    def worst(self) -> str:
        """The summary that lies farthest out."""
        distance = self.distance
        return max(distance, key=lambda name: distance[name])


def _two_sided(observed: float, drawn: np.ndarray) -> float:
    tails = ((drawn <= observed).sum(), (drawn >= observed).sum())
    return float(min(1.0, 2 * (min(tails) + 1) / (len(drawn) + 1)))


def summaries(
    model: Callable, guide: Callable, args: tuple, name: str, *, draws: int = 1000, seed: int | None = None
) -> Summaries:
    """Draw `draws` data sets from the posterior predictive, and summarise all values of an observed site together."""
    with torch.no_grad(), seeded(seed):
        layout = prepare(model, guide, args)
        x = layout.observed_values[name].double().reshape(1, -1)
        binary = bool(((x == 0) | (x == 1)).all())
        chosen = {n: f for n, f in SUMMARIES.items() if x.numel() > 1 and not (binary and n != "mean")}
        chosen = chosen or {"value": SUMMARIES["mean"]}
        step, parts = max(1, BLOCK_ELEMENTS // layout.elements), []
        for i in range(0, draws, step):
            count = min(step, draws - i)
            values = simulate(model, layout, count, args, guide_values(guide, layout, count, args))[name]
            parts.append({n: f(values.double().reshape(count, -1)) for n, f in chosen.items()})
    observed = {n: float(f(x)) for n, f in chosen.items()}
    return Summaries(observed, {n: torch.cat([part[n] for part in parts]).numpy() for n in chosen})
