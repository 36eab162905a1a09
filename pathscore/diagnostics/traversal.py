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
CHANGED = 3
"""Rows of pictures that show what 0/1 units change."""


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
    with torch.no_grad(), seeded(subject.effort.seed + 6):
        base = {k: v[:, :1] for k, v in guide_values(subject.guide, subject.layout, 1, subject.args).items()}
    order = np.argsort(site.rate)[::-1]
    moved = partial(_moved, subject, name, base)
    if site.discrete and site.aggregate.min() >= 0 and site.aggregate.max() <= 1:
        return [_changes(subject, name, [(u, moved(u, np.array([0, 1]))) for u in order[: CHANGED * STEPS]])]
    images = [moved(unit, _range(site, unit)) for unit in order[:UNITS]]
    grid = np.stack(images).reshape(len(images), -1, *subject.image_shape)
    return [
        Picture(
            "traversal",
            f"Traversals of {name}",
            "One unit a row, moved over the range it has in the data.",
            partial(plots.image_grid, images=grid, row_labels=[f"{name}[{u}]" for u in order[:UNITS]]),
        )
    ]


def _moved(subject: Subject, name: str, base: dict[str, torch.Tensor], unit: int, steps: np.ndarray) -> np.ndarray:
    """E[x | z] with one unit at each of the steps and the others as they are, (len(steps), X)."""
    path = {k: v.expand(len(steps), *subject.layout.sites[k].shape).clone() for k, v in base.items()}
    path[name][..., unit] = torch.as_tensor(steps).to(path[name])[:, None]
    return likelihood_mean(subject, path, len(steps))[:, 0]


def _changes(subject: Subject, name: str, pairs: list[tuple[int, np.ndarray]]) -> Picture:
    """What setting a 0/1 unit changes: E[x | z_u = 1] − E[x | z_u = 0], all units on one scale."""
    changes = np.stack([one - zero for _, (zero, one) in pairs])
    changes = np.concatenate([changes, np.zeros((-len(changes) % STEPS, changes.shape[1]))])
    most = max(float(np.abs(changes).max()), 1e-12)
    images = (0.5 + changes / (2 * most)).reshape(-1, STEPS, *subject.image_shape or ())
    units = ", ".join(str(unit) for unit, _ in pairs)
    return Picture(
        "traversal",
        f"What each unit of {name} changes",
        f"E[x | z = 1] − E[x | z = 0] of a unit, up to ± {most:.2f}; middle grey: no change. The units, row by row: "
        f"{units}.",
        partial(plots.image_grid, images=images),
    )


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
