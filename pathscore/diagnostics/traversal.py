"""Move one latent unit at a time and decode: pictures of what each unit means.

`traverse(subject, use) -> [Picture]`: the units with the largest rate of the site next to the data, each moved over the
range it has in the aggregate posterior (0 → 1 for a discrete unit) while the others stay at the guide's draw for one
data point. Works for any model with one latent site below the data and a likelihood that has a mean.
"""

from functools import partial

import numpy as np
import torch

from pathscore.diagnostics import plots
from pathscore.diagnostics.latent_space import LatentUse, SiteUse
from pathscore.diagnostics.programs import guide_values, replay
from pathscore.diagnostics.scoring import align
from pathscore.diagnostics.seeding import seeded
from pathscore.diagnostics.subject import Picture, Subject

UNITS, STEPS = 6, 9


def likelihood_mean(subject: Subject, values: dict[str, torch.Tensor], count: int) -> np.ndarray:
    """E[x | z] at latent values (S, N, *event): (S, N, X)."""
    site = subject.layout.observed()

    def collect(nodes: dict, draws: int) -> dict[str, torch.Tensor]:
        return {"mean": align(site, nodes[site.name]["fn"].mean, draws)}

    with torch.no_grad():
        mean = replay(subject.model, subject.layout, count, subject.args, values, collect)["mean"]
    return mean.reshape(*mean.shape[:2], -1).numpy()


def traverse(subject: Subject, found: LatentUse) -> list[Picture]:
    """The traversal picture, or none where the data aren't pictures or no site of vectors lies next to them."""
    if subject.image_shape is None or len(subject.image_shape) != 3:
        return []
    name, site = next(iter(_lowest(found).items()))
    if site.means.ndim != 2:
        return []
    units = np.argsort(site.rate)[::-1][:UNITS]
    with torch.no_grad(), seeded(subject.effort.seed + 6):
        base = {k: v[:, :1] for k, v in guide_values(subject.guide, subject.layout, 1, subject.args).items()}
    images = []
    for unit in units:
        steps = _range(site, unit)
        path = {k: v.expand(len(steps), *subject.layout.sites[k].shape).clone() for k, v in base.items()}
        path[name][..., unit] = torch.as_tensor(steps).to(path[name])[:, None]
        images.append(likelihood_mean(subject, path, len(steps))[:, 0])
    grid = np.stack(images).reshape(len(units), -1, *subject.image_shape)
    return [
        Picture(
            "traversal",
            f"Traversals of {name}",
            "One unit a row, moved over the range it has in the data.",
            partial(plots.image_grid, images=grid, row_labels=[f"{name}[{u}]" for u in units]),
        )
    ]


def _lowest(found: LatentUse) -> dict[str, SiteUse]:
    """The site next to the data: the last one that a top-down program draws."""
    name = list(found.sites)[-1]
    return {name: found.sites[name]}


def _range(site: SiteUse, unit: int) -> np.ndarray:
    values = site.aggregate[:, unit]
    if site.discrete:
        lowest, highest = site.aggregate.min(), site.aggregate.max()
        return np.unique(np.round(np.linspace(lowest, highest, min(STEPS, int(highest - lowest) + 1))))
    low, high = np.quantile(values, [0.01, 0.99])
    return np.linspace(low, high, STEPS)
