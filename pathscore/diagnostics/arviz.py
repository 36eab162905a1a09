"""Guide draws in the schema that ArviZ reads, for any Pyro model and guide.

`to_arviz(model, guide, x, draws=1000)` returns what the installed ArviZ takes, `draw_tree(…)` the xarray.DataTree that
this project works with. Dimensions carry the names of the plates and events they
come from: a site z1 in `pyro.plate("data", N)` with a vector event is (chain, draw, data, z1_dim_0). Draws are made and
stored block by block, so with `path=` only one block is ever in memory.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pathscore.diagnostics.blocks import BLOCK_ELEMENTS, Block, Blocks
from pathscore.diagnostics.programs import draw, prepare, simulate
from pathscore.diagnostics.schema import Writer, attributes_of
from pathscore.diagnostics.seeding import seeded
from pathscore.diagnostics.storage import Memory, NetCDF
from pathscore.errors import UsageError
from pathscore.svi.pairs import takes_svi


def for_arviz(tree: Any) -> Any:
    """A tree of draws as the installed ArviZ takes it: InferenceData before version 1, the DataTree itself since."""
    import arviz  # takes seconds

    data = vars(arviz).get("InferenceData")  # asked for by name, version 1 warns that it is gone
    return tree if data is None else data.from_datatree(tree)


@takes_svi
def to_arviz(model: Callable, guide: Callable, x, draws: int = 1000, **options: Any) -> Any:
    """Draws of a guide in ArviZ's schema, for `az.summary`, `az.loo`, `az.plot_trace` and the rest of ArviZ.

    `to_arviz(svi, x)` or `to_arviz(model, guide, x)`; arguments, groups and errors as `draw_tree`. Returns an
    InferenceData where ArviZ is older than version 1, else an xarray.DataTree.
    """
    return for_arviz(draw_tree(model, guide, x, draws, **options))


def draw_tree(
    model: Callable,
    guide: Callable,
    x,
    draws: int = 1000,
    *,
    path: str | Path | None = None,
    prior_draws: int | None = None,
    predictive_draws: int | None = None,
    event_dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence] | None = None,
    attrs: Mapping[str, Any] | None = None,
    seed: int | None = None,
    block_elements: int = BLOCK_ELEMENTS,
):
    """Draw from the guide, score under the model, and return an xarray.DataTree in the InferenceData schema.

    Groups: posterior, sample_stats (lp = log p(x, z), log_q = log q(z | x), log_weight = lp − log_q), log_likelihood,
    posterior_predictive, prior, prior_predictive, observed_data. Weights have the plates that all sites share: per
    data point when every latent is local, per draw when one is global. Discrete sites are int8 (int32 where the
    support has no small bound). All draws are one chain of independent draws, for which R-hat has no meaning.

    model, guide: Pyro programs, called as model(x) and guide(x), or model(*x) for a tuple x. draws: S, from the guide.
    path: write a netCDF file there, block by block, and return the tree opened lazily from it.
    prior_draws, predictive_draws: in the prior groups and posterior_predictive; `draws` by default, 0 for none.
    event_dims: names of event dimensions, {"x": ("pixel",)}. coords: labels of dimensions. attrs: more attributes.
    seed: draw reproducibly without touching the global generator. block_elements: site elements to hold at once.

    Raises UsageError for no draws, NumericsError for draws or log-probabilities that are NaN.
    """
    if draws < 1:
        raise UsageError(f"draws={draws}: ask for at least one draw")
    args = x if isinstance(x, tuple) else (x,)
    prior, predictive = (draws if n is None else n for n in (prior_draws, predictive_draws))
    with torch.no_grad(), seeded(seed):
        layout = prepare(model, guide, args, dict(event_dims or {}))
        labels, stored = {**layout.coords, **_arrays(coords or {})}, attributes_of(attrs)
        writer = Writer(Memory(labels, stored) if path is None else NetCDF(path, labels, stored), layout)
        writer.observed(layout.observed_values)
        blocks = Blocks(model, guide, layout, args, block_elements)
        for block in blocks.of(draws):
            _write_posterior(writer, model, guide, block, draws, predictive)
        for block in blocks.of(prior):
            _write_prior(writer, model, block, prior)
        return writer.store.close()


def _arrays(coords: Mapping[str, Sequence]) -> dict[str, np.ndarray]:
    return {name: np.asarray(labels) for name, labels in coords.items()}


def _write_posterior(writer: Writer, model, guide, block: Block, draws: int, predictive: int) -> None:
    """posterior, sample_stats and log_likelihood of one block, and new data from the first `predictive` draws."""
    found = draw(model, guide, block.layout, block.count, block.args)
    writer.sites("posterior", ("latent", "deterministic"), found.values, block, draws)
    writer.statistics(found, block, draws)
    writer.likelihoods(found.log_likelihood, block, draws)
    part = block.first(predictive)
    if part is not None:
        latents = {s.name: found.values[s.name][: part.count] for s in block.layout.of("latent")}
        values = simulate(model, block.layout, part.count, block.args, latents)
        writer.sites("posterior_predictive", ("observed",), values, part, predictive)


def _write_prior(writer: Writer, model, block: Block, draws: int) -> None:
    """Latents from the prior, and data given them."""
    values = simulate(model, block.layout, block.count, block.args)
    writer.sites("prior", ("latent", "deterministic"), values, block, draws)
    writer.sites("prior_predictive", ("observed",), values, block, draws)
