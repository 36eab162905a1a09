"""Which group and which dimensions a result goes to in the InferenceData schema.

A `Writer` allocates each variable in its store the first time it meets it, and then writes blocks:
`writer.sites(group, kinds, values, block, draws)` for sites, `statistics` and `likelihoods` for log-probabilities.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import numpy as np
import torch

from pathscore.diagnostics.blocks import Block
from pathscore.diagnostics.layout import Layout
from pathscore.diagnostics.programs import Draws
from pathscore.diagnostics.storage import Store
from pathscore.errors import NumericsError


def attributes_of(extra: Mapping[str, Any] | None) -> dict[str, str | int | float]:
    """created_at, inference_library and versions, then the caller's own; values that netCDF can't hold become text."""
    attrs = {
        "created_at": datetime.now(UTC).isoformat(),
        "creation_library": "pathscore",
        "creation_library_version": _version("pathscore"),
        "creation_library_language": "Python",
        "inference_library": "pyro",
        "inference_library_version": _version("pyro-ppl"),
        "torch_version": _version("torch"),
    }
    return {**attrs, **{k: v if isinstance(v, int | float) else str(v) for k, v in (extra or {}).items()}}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


class Writer:
    """Puts blocks of draws into a store under the names of the schema."""

    def __init__(self, store: Store, layout: Layout, chains: int = 1):
        self.store, self.layout, self.chains = store, layout, chains
        self._arrays: dict[tuple[str, str], Any] = {}

    def observed(self, values: Mapping[str, torch.Tensor]) -> None:
        """The data, once: group observed_data, without chain and draw."""
        for site in self.layout.of("observed"):
            array = self.store.array("observed_data", site.name, site.dims, site.shape, site.dtype)
            array[...] = _numpy(values[site.name], site.dtype)

    def sites(self, group: str, kinds: tuple[str, ...], values: Mapping, block: Block, draws: int) -> None:
        """Values (draws, *plates, *event) of the sites of some kinds."""
        for site in (site for kind in kinds for site in self.layout.of(kind)):
            self._put(group, site.name, site.dims, site.shape, site.dtype, values[site.name], block, draws)

    def statistics(self, found: Draws, block: Block, draws: int) -> None:
        """sample_stats: lp, log_q and log_weight, along the plates that all sites share."""
        shape = tuple(self.layout.plate_sizes[name] for name in self.layout.common)
        named = {"lp": found.log_p, "log_q": found.log_q, "log_weight": found.log_weight}
        for name, values in named.items():
            self._put("sample_stats", name, tuple(self.layout.common), shape, "float64", values, block, draws)

    def scalar(self, name: str, values: torch.Tensor, block: Block, draws: int, dtype: str = "float64") -> None:
        """One number a draw in sample_stats."""
        self._put("sample_stats", name, (), (), dtype, values, block, draws)

    def likelihoods(self, found: Mapping[str, torch.Tensor], block: Block, draws: int) -> None:
        """log_likelihood of every observed site, along its plates."""
        for site in self.layout.of("observed"):
            shape = site.shape[: len(site.plates)]
            self._put("log_likelihood", site.name, site.plates, shape, "float64", found[site.name], block, draws)

    def _put(self, group, name, dims, shape, dtype, values, block: Block, draws: int) -> None:
        if (group, name) not in self._arrays:
            full = (self.chains, draws, *shape)
            self._arrays[group, name] = self.store.array(group, name, ("chain", "draw", *dims), full, dtype)
        bad = int(values.isnan().sum()) if values.is_floating_point() else 0
        if bad:
            raise NumericsError(
                f"{group}: {name!r} has {bad} NaN values in {values.numel()}; check the parameters of "
                "the guide and the last checkpoint"
            )
        self._arrays[group, name][block.index(dims)] = _numpy(values, dtype)


def _numpy(values: torch.Tensor, dtype: str) -> np.ndarray:
    return values.detach().cpu().numpy().astype(dtype, copy=False)
