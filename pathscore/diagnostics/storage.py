"""Where draws go: arrays in memory, or a netCDF file written block by block; both become the same DataTree.

A store answers `array(group, name, dims, shape, dtype)` with something that takes `array[index] = block`, and
`close()` with the tree. The layout is the InferenceData schema: one group a kind of draws (`posterior`,
`sample_stats`, …), coordinates beside the variables, attributes on every group.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_ROWS_PER_BLOCK = 128
"""Draws and data points in one block of the file: small enough to read one data point's draws without the others."""


class Store(ABC):
    """Base of the two stores: remembers coordinates and attributes, hands out arrays to write to."""

    def __init__(self, coords: Mapping[str, np.ndarray], attrs: Mapping[str, Any]):
        self.coords, self.attrs = dict(coords), dict(attrs)

    @abstractmethod
    def array(self, group: str, name: str, dims: tuple[str, ...], shape: tuple[int, ...], dtype: str) -> Any:
        """Something to write blocks of one variable to."""

    @abstractmethod
    def close(self) -> Any:
        """Finish writing and return the xarray.DataTree."""

    def labels(self, dim: str, size: int) -> np.ndarray:
        """The coordinate of a dimension; 0 … n − 1 where none was given or its length differs (fewer prior draws)."""
        given = self.coords.get(dim)
        return given if given is not None and len(given) == size else np.arange(size)


class Memory(Store):
    """Everything in numpy arrays."""

    def __init__(self, coords, attrs):
        super().__init__(coords, attrs)
        self.groups: dict[str, dict[str, tuple[tuple[str, ...], np.ndarray]]] = {}

    def array(self, group, name, dims, shape, dtype):
        variable = np.zeros(shape, dtype)
        self.groups.setdefault(group, {})[name] = (dims, variable)
        return variable

    def close(self):
        import xarray

        nodes = {"/": xarray.Dataset(attrs=self.attrs)}
        for group, variables in self.groups.items():
            sizes = {d: n for dims, a in variables.values() for d, n in zip(dims, a.shape, strict=True)}
            coords = {d: self.labels(d, n) for d, n in sizes.items()}
            nodes[f"/{group}"] = xarray.Dataset(variables, coords, self.attrs)
        return xarray.DataTree.from_dict(nodes)


class NetCDF(Store):
    """A netCDF-4 file: a block is on disk as soon as it is assigned. Integers are compressed, noise is not."""

    def __init__(self, path: str | Path, coords, attrs):
        import h5netcdf

        super().__init__(coords, attrs)
        self.path = Path(path)
        self.file = h5netcdf.File(self.path, "w")
        self.file.attrs.update(self.attrs)

    def array(self, group, name, dims, shape, dtype):
        node = self.file.groups.get(group) or self._group(group)
        for dim, size in zip(dims, shape, strict=True):
            if dim not in node.dimensions:
                node.dimensions[dim] = size
                labels = self.labels(dim, size)
                node.create_variable(dim, (dim,), labels.dtype)[:] = labels
        if 0 in shape or not shape:  # a single number, or none: netCDF has no blocks of those
            return node.create_variable(name, dims, dtype)
        # The event stays whole: a block is (chain 1, draws, data, *event).
        blocks = tuple(min(n, _ROWS_PER_BLOCK) if i < 3 else n for i, n in enumerate(shape))
        packed = {"compression": "gzip", "compression_opts": 1} if np.dtype(dtype).kind == "i" else {}
        return node.create_variable(name, dims, dtype, chunks=blocks, **packed)

    def _group(self, group: str):
        node = self.file.create_group(group)
        node.attrs.update(self.attrs)
        return node

    def close(self):
        import xarray

        self.file.close()
        return xarray.open_datatree(self.path, engine="h5netcdf")
