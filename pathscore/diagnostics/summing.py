"""Discrete sites that the model has and the guide has not: summed out of log p, and drawn from their posterior.

    log p(x, z) = log Σ_a p(x, z, a)        a ~ p(a | x, z)   by forward filtering and backward sampling

`drawn(model, names, dim)` is the model with those sites drawn given the data; `summed_out(enumerated_trace(…))` gives
the log-probabilities left without them. z: what the guide draws; dim: the first dimension left of all plates.

References: Tensor Variable Elimination for Plated Factor Graphs. Obermeyer, Bingham, Jankowiak, Chiu, Pradhan, Rush,
Goodman, 2019.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro import poutine
from pyro.infer import infer_discrete
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites


class _Marked(Messenger):
    """Marks some sites to be enumerated, and no others."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = frozenset(names)

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"]:
            msg["infer"] = {**msg["infer"], "enumerate": "parallel" if msg["name"] in self.names else None}


def marked(model: Callable, names: Sequence[str]) -> Callable:
    """The model with some sites to be enumerated."""
    return _Marked(names)(model)


def drawn(model: Callable, names: Sequence[str], dim: int) -> Callable:
    """The model with some discrete sites drawn from their posterior given the data and the values of the others."""
    return infer_discrete(marked(model, names), first_available_dim=dim)


def enumerated_trace(model: Callable, names: Sequence[str], dim: int, args: Sequence) -> Trace:
    """A run of the model over every value of some sites, its log-probabilities in packed form."""
    with poutine.block(), EnumMessenger(dim):
        trace = prune_subsample_sites(poutine.trace(marked(model, names)).get_trace(*args))
    trace.compute_log_prob()
    trace.pack_tensors()
    return trace


def summed_out(trace: Trace) -> tuple[set[str], list[tuple[set[str], torch.Tensor]]]:
    """(sites whose log-probability moves with an enumerated one, what is left of them).

    Each remainder is log Σ_a of a group of sites, masked and not scaled, over their plates, and comes with their names.
    """
    every: dict[str, Any] = dict(trace.nodes)
    nodes = {name: site for name, site in every.items() if site["type"] == "sample"}
    symbols = {s["infer"]["_enumerate_symbol"] for s in nodes.values() if "_enumerate_symbol" in s["infer"]}
    factors: OrderedDict[frozenset, list[torch.Tensor]] = OrderedDict()
    moved: dict[str, frozenset] = {}
    for name, site in nodes.items():
        term: Any = packed.scale_and_mask(site["packed"]["unscaled_log_prob"], mask=site["packed"]["mask"])
        if symbols.isdisjoint(term._pyro_dims):
            continue
        moved[name] = frozenset(trace.plate_to_symbol[f.name] for f in site["cond_indep_stack"] if f.vectorized)
        factors.setdefault(moved[name], []).append(term)
    left = []
    for plates, terms in contract_tensor_tree(factors, symbols).items():
        names = {name for name, own in moved.items() if plates <= own}
        left += [(names, packed.unpack(term, trace.symbol_to_dim)) for term in terms]
    return set(moved), left
