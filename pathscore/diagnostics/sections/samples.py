"""Pictures of the data, of their reconstructions, and of samples of the model."""

from functools import partial

import numpy as np
import torch

from pathscore.diagnostics import plots
from pathscore.diagnostics.programs import guide_values, simulate
from pathscore.diagnostics.seeding import seeded
from pathscore.diagnostics.subject import Picture, Section, Subject
from pathscore.diagnostics.traversal import likelihood_mean

COLUMNS = 12


def section(subject: Subject) -> Section:
    """Data, mean reconstructions, and means of samples from the prior."""
    if subject.image_shape is None or len(subject.image_shape) != 3:
        return Section("samples", "Samples and reconstructions", "The data are not images: there is nothing to show.")
    layout, site = subject.layout, subject.layout.observed()
    count = min(COLUMNS, len(subject.args[0]))
    with torch.no_grad(), seeded(subject.effort.seed + 7):
        latents = [s.name for s in layout.of("latent")]
        prior = simulate(subject.model, layout, 4, subject.args, keep=latents)
        samples = likelihood_mean(subject, prior, 4)[:, :count]
        rebuilt = likelihood_mean(subject, guide_values(subject.guide, layout, 1, subject.args), 1)[0, :count]
    x = layout.observed_values[site.name].reshape(len(subject.args[0]), -1).numpy()[:count]
    low, high = min(0.0, float(x.min())), max(1.0, float(x.max()))
    shape = (count, *subject.image_shape)
    pairs = (np.stack([x, rebuilt]).reshape(2, *shape) - low) / (high - low)
    drawn = (samples.reshape(4, *shape) - low) / (high - low)
    return Section(
        "samples",
        "Samples and reconstructions",
        "Data and their reconstructions (E[x | z] at one draw of the guide); samples (E[x | z] at draws of the prior).",
        pictures=[
            Picture(
                "reconstructions-page",
                "Data and reconstructions",
                f"{count} data points above, their reconstructions below.",
                partial(plots.image_grid, images=pairs, row_labels=("data", "reconstruction")),
            ),
            Picture(
                "samples-page",
                "Samples of the model",
                f"{4 * count} draws from the prior, decoded.",
                partial(plots.image_grid, images=drawn),
            ),
        ],
    )
