"""From the sites of a trace to tensors with draws first: values (S, *plates, *event), log-probabilities (S, *common).

`align(site, value, draws)`, `total_log_prob(nodes, layout, draws)`, `log_likelihoods(layout, nodes, draws)`. Sums
are in float64. Scales and masks act as in Pyro, but without the scale of the plates that are summed no further.
"""

from typing import Any

import torch
from pyro.distributions.util import scale_and_mask

from pathscore.diagnostics.layout import Layout, Site, is_deterministic
from pathscore.errors import UsageError

Values = dict[str, torch.Tensor]
Nodes = dict[str, dict]


def align(site: Site, value: torch.Tensor, draws: int) -> torch.Tensor:
    """A value as the program made it inside the plate of draws → (S, *plates, *event).

    Raises UsageError when the number of elements fits neither S values nor one shared by all draws.
    """
    single = torch.Size(site.raw_shape).numel()
    if value.numel() == draws * single:
        return value.reshape(draws, *site.shape)
    if value.numel() == single:
        return value.reshape(1, *site.shape).expand(draws, *site.shape)
    raise UsageError(
        f"site {site.name!r} has shape {tuple(value.shape)} for {draws} draws and {site.raw_shape} for "
        "one: write it so that it broadcasts over a plate outside its own"
    )


def _log_prob(node: dict, layout: Layout) -> torch.Tensor:
    """log_prob, scaled and masked as Pyro does, but without the scale of the common plates (it is a sum over them)."""
    logs = node["fn"].log_prob(node["value"])
    return scale_and_mask(logs, scale=common_free_scale(node, layout), mask=node["mask"])


def common_free_scale(node: dict, layout: Layout) -> Any:
    """A site's scale without that of the common plates."""
    common = 1.0
    for frame in node["cond_indep_stack"]:
        if frame.dim in layout.common.values() and frame.full_size:
            common *= frame.full_size / frame.size
    return node["scale"] / common


def _pad(logs: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Length-1 dimensions on the left up to (S, *nesting)."""
    return logs.reshape((1,) * (layout.nesting + 1 - logs.dim()) + logs.shape)


def total_log_prob(nodes: Nodes, layout: Layout, draws: int) -> torch.Tensor:
    """Sum of log_prob over sites and over all plates but the common ones, in float64: (S, *common)."""
    shape = (draws, *(layout.plate_sizes[name] for name in layout.common))
    total = torch.zeros(shape, dtype=torch.float64)
    for node in nodes.values():
        if not is_deterministic(node):
            total = total + over_common(_log_prob(node, layout), layout, draws).to(total.device)
    return total


def over_common(logs: torch.Tensor, layout: Layout, draws: int) -> torch.Tensor:
    """Log-probabilities as a program makes them, summed over all plates but the common ones, in float64."""
    keep = {layout.nesting + 1 + dim for dim in layout.common.values()} | {0}
    logs = _pad(logs, layout).double()
    out = [d for d in range(logs.dim()) if d not in keep]
    return logs.sum(out) if out else logs


def log_likelihoods(layout: Layout, nodes: Nodes, draws: int) -> Values:
    """log_prob of every observed site, masked, not scaled: name → (S, *plates)."""
    return {site.name: _likelihood(site, nodes[site.name], draws) for site in layout.of("observed")}


def _likelihood(site: Site, node: dict, draws: int) -> torch.Tensor:
    return per_plate(site, scale_and_mask(node["fn"].log_prob(node["value"]), mask=node["mask"]), draws)


def per_plate(site: Site, logs: torch.Tensor, draws: int) -> torch.Tensor:
    """Log-probabilities of a site as (S, *plates)."""
    shape = site.shape[: len(site.plates)]
    if logs.numel() == torch.Size(shape).numel():
        return logs.reshape(1, *shape).expand(draws, *shape)
    return logs.reshape(draws, *shape)
