"""The record of a data set in memory: `Dataset`."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    kind: "binary" (all 0 or 1), "unit" (in [0, 1]) or "real".  x: (N, X) float32; x_test: (N', X).
    labels, labels_test: (N,), (N',) int64, or None.  shape: (C, H, W) of an image, or (X,).
    """

    name: str
    kind: str
    x: Tensor
    x_test: Tensor
    labels: Tensor | None
    labels_test: Tensor | None
    shape: tuple[int, ...]
