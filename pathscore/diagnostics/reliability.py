"""Are predicted probabilities right? Reliability curves for 0/1 data, with the model's own data as the yardstick.

`reliability(model, guide, args) -> Reliability`. Probabilities E[x | z], z ~ q(z | x), are compared with the values of
the same x: among values given probability ½, how many are 1? The guide has seen x, so that even under a
right model with the exact posterior the answer isn't ½; the curve of held-out data is therefore compared with the
curve of data sets simulated from the model and put through the same guide. Observed shares are an isotonic
regression on the predicted probability (pooled adjacent violators, PAVA), so that no smoothing is chosen.

References: Dimitriadis, Gneiting & Jordan 2021, Stable reliability diagrams for probabilistic classifiers; Gelman, Meng
& Stern 1996, Posterior predictive assessment of model fitness via realized discrepancies.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import isotonic_regression

from pathscore.diagnostics.blocks import BLOCK_ELEMENTS
from pathscore.diagnostics.layout import Layout, Site
from pathscore.diagnostics.programs import draw, prepare, simulate
from pathscore.diagnostics.rows import Place, data_places, require_amortised, with_data
from pathscore.diagnostics.seeding import seeded
from pathscore.errors import UsageError

GROUPS = 100
"""Values are averaged in this many groups of equal size, by predicted probability, before the isotonic fit."""


@dataclass(frozen=True)
class Curve:
    """Isotonic frequency of ones against their predicted probability, both (G,) and not decreasing."""

    predicted: np.ndarray
    observed: np.ndarray
    weight: np.ndarray  # (G,) values

    def distance(self, other: "Curve") -> float:
        """Mean |difference of observed shares| at this curve's probabilities, over its values."""
        reference = np.interp(self.predicted, other.predicted, other.observed)
        return float(np.average(np.abs(self.observed - reference), weights=self.weight))


@dataclass(frozen=True)
class Reliability:
    """The curve of held-out data, the one of model data, and how far curves of single model data sets lie from it."""

    held_out: Curve
    model: Curve
    model_distances: np.ndarray  # (M,)

    @property
    def error(self) -> float:
        """Mean difference of the two curves in probability."""
        return self.held_out.distance(self.model)

    @property
    def evidence(self) -> bool:
        """Whether the error is beyond what data sets of the model show: four standard deviations above their mean."""
        return bool(self.error > self.model_distances.mean() + 4 * self.model_distances.std(ddof=1))


def reliability(
    model: Callable,
    guide: Callable,
    args: tuple,
    *,
    name: str | None = None,
    draws: int = 10,
    data_sets: int = 10,
    seed: int | None = None,
) -> Reliability:
    """Curves of the data in `args` and of `data_sets` simulated sets of the same size, `draws` draws of z each.

    name: the observed site, where there are several.

    Raises UsageError for data that aren't 0/1, for an observed site that isn't an argument, and for latents that
    several data share.
    """
    with torch.no_grad(), seeded(seed):
        layout = prepare(model, guide, args)
        site = layout.observed(name)
        _require_binary(layout, args, site)
        place = data_places(layout, args)[site.name]
        pairs = [_values(model, guide, layout, args, site, place, draws)]
        for _ in range(data_sets):
            simulated = simulate(model, layout, 1, args)
            drawn = with_data(layout, args, {s.name: simulated[s.name][0] for s in layout.of("observed")})
            require_amortised(model, guide, layout, args, drawn)
            pairs.append(_values(model, guide, layout, drawn, site, place, draws))
    held_out, *simulated = (curve(*pair) for pair in pairs)
    predicted, observed = (np.concatenate(parts) for parts in zip(*pairs[1:], strict=True))
    pooled = curve(predicted, observed)
    return Reliability(held_out, pooled, np.array([c.distance(pooled) for c in simulated]))


def _require_binary(layout: Layout, args: tuple, site: Site) -> None:
    x = layout.observed_values[site.name]
    if not bool(((x == 0) | (x == 1)).all()):
        raise UsageError("reliability of predicted probabilities needs 0/1 data")
    if layout.shared:
        names = ", ".join(layout.shared)
        raise UsageError(
            f"reliability of predicted probabilities needs latents local to each data point; {names} are not"
        )


def _values(
    model, guide, layout: Layout, args: tuple, site: Site, place: Place, draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted probability and value of every element of the data, (N X,) each, the data at `place`."""
    name = site.name
    total = torch.zeros(site.shape, dtype=torch.float64)
    step = max(1, BLOCK_ELEMENTS // layout.elements)
    for start in range(0, draws, step):
        count = min(step, draws - start)
        found = draw(model, guide, layout, count, args, extra=lambda nodes, _: {"mean": nodes[name]["fn"].mean})
        total += found.extra["mean"].double().reshape(count, *total.shape).sum(0).cpu()
    return (total / draws).flatten().numpy(), place.read(args).double().cpu().flatten().numpy()


def curve(predicted: np.ndarray, observed: np.ndarray, groups: int = GROUPS) -> Curve:
    """Isotonic regression of 0/1 outcomes on predicted probabilities, both (P,)."""
    cuts = np.array_split(np.argsort(predicted, kind="stable"), min(groups, len(predicted)))
    means, rates = (np.array([values[c].mean() for c in cuts]) for values in (predicted, observed))
    weight = np.array([len(c) for c in cuts], dtype=float)
    return Curve(means, isotonic_regression(rates, weights=weight).x, weight)
