"""Results of `pyro.infer.MCMC` in the same schema as guide draws.

`mcmc_to_arviz(mcmc)` returns what the installed ArviZ takes, `chain_tree(mcmc)` the xarray.DataTree. Dimensions (chain,
draw, *plates, *event) are named as `to_arviz` names them, so that a guide and a chain fit into one ArviZ plot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from pathscore.diagnostics.arviz import for_arviz
from pathscore.diagnostics.blocks import Block
from pathscore.diagnostics.layout import Layout
from pathscore.diagnostics.programs import prepare, replay, simulate
from pathscore.diagnostics.schema import Writer, attributes_of
from pathscore.diagnostics.scoring import log_likelihoods, total_log_prob
from pathscore.diagnostics.seeding import seeded
from pathscore.diagnostics.storage import Memory, NetCDF
from pathscore.errors import UsageError


def mcmc_to_arviz(mcmc, model=None, args: tuple | None = None, **options: Any) -> Any:
    """Chains in ArviZ's schema; arguments, groups and errors as `chain_tree`. Returns what `to_arviz` returns."""
    return for_arviz(chain_tree(mcmc, model, args, **options))


def chain_tree(
    mcmc,
    model=None,
    args: tuple | None = None,
    *,
    path=None,
    event_dims: Mapping[str, Sequence[str]] | None = None,
    attrs: Mapping[str, Any] | None = None,
    seed: int | None = None,
):
    """Convert a finished MCMC run: posterior, sample_stats (lp, diverging), log_likelihood, posterior_predictive,
    observed_data.

    `model` and `args` default to the kernel's model and the arguments of the run. Discrete sites that the kernel
    summed out have no draws: they are listed in the attribute `summed_out`, and the groups that would need them
    (everything but posterior and observed_data) are left out.

    Raises UsageError when the run has no samples or the model can't be found.
    """
    # Pyro keeps the arguments of `run` nowhere public.
    keywords = mcmc._kwargs or {} if args is None else {}
    model = model or getattr(mcmc.kernel, "model", None)
    args = args if args is not None else (mcmc._args or ())
    samples = mcmc.get_samples(group_by_chain=True) if mcmc._samples else {}
    if model is None or not samples:
        raise UsageError("nothing to convert: call mcmc.run(...) first, and pass model= where the kernel has none")
    model = partial(model, **keywords)
    with torch.no_grad(), seeded(seed):
        layout = prepare(model, lambda *_: None, args, dict(event_dims or {}), guided=False)
        missing = [s.name for s in layout.of("latent") if s.name not in samples]
        layout = _without(layout, missing)
        stored = attributes_of({**(attrs or {}), **({"summed_out": ", ".join(missing)} if missing else {})})
        store = Memory(layout.coords, stored) if path is None else NetCDF(path, layout.coords, stored)
        chains, draws = next(iter(samples.values())).shape[:2]
        writer = Writer(store, layout, chains)
        writer.observed(layout.observed_values)
        for chain in range(chains):
            block = Block(slice(0, draws), slice(None), None, layout, args, chain)
            _write_chain(writer, model, {n: v[chain] for n, v in samples.items()}, block, scored=not missing)
        if not missing:
            _write_divergences(writer, mcmc, draws)
        return store.close()


def _without(layout: Layout, names: list[str]) -> Layout:
    return replace(layout, sites={n: s for n, s in layout.sites.items() if n not in names})


def _write_chain(writer: Writer, model, samples: dict[str, torch.Tensor], block: Block, scored: bool) -> None:
    layout, draws = block.layout, block.count
    values = {s.name: samples[s.name].reshape(draws, *s.shape) for s in layout.of("latent")}
    writer.sites("posterior", ("latent",), values, block, draws)
    if not scored:
        return

    def scores(nodes, count):
        return {"lp": total_log_prob(nodes, layout, count), **log_likelihoods(layout, nodes, count)}

    found = replay(model, layout, draws, block.args, values, scores)
    writer.scalar("lp", found.pop("lp").reshape(draws, -1).sum(-1), block, draws)
    writer.likelihoods(found, block, draws)
    predictive = simulate(model, layout, draws, block.args, values)
    writer.sites("posterior_predictive", ("observed",), predictive, block, draws)


def _write_divergences(writer: Writer, mcmc, draws: int) -> None:
    """sample_stats: diverging, 0 or 1 per draw, from the kernel's own count."""
    found = mcmc.diagnostics().get("divergences", {})
    for chain in range(writer.chains):
        flags = torch.zeros(draws, dtype=torch.int8)
        flags[[i for i in found.get(f"chain {chain}", []) if i < draws]] = 1
        block = Block(slice(0, draws), slice(None), None, writer.layout, (), chain)
        writer.scalar("diverging", flags, block, draws, dtype="int8")
