"""Batches as slices: `Batches(data, size, seed, binarize).rest(epoch, batch)` yields tuples of tensors, B ≤ `size`
rows.

An epoch is the whole set, its rows x binarised at once, read in the order `epoch_order(N, seed, epoch)`: a pure
function of (seed, epoch, batch), so a run that resumes in the middle of an epoch sees the batches it would have seen.
"""

from collections.abc import Iterator

from torch import Tensor

from pathscore.data.dataset import Arguments
from pathscore.data.epochs import binarize, epoch_order


class Batches:
    """The rows of `data`, tensors with the same first axis N, in batches of `size`; the last one holds what is left.

    Only the first tensor, x, is binarised. Without data, (), an epoch is one empty batch.
    """

    def __init__(self, data: Arguments, size: int, seed: int, mode: str):
        self.data, self.size, self.seed, self.mode = data, size, seed, mode
        self._ready: tuple[int, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return -(-len(self.data[0]) // self.size) if self.data else 1

    def rest(self, epoch: int, batch: int = 0) -> Iterator[Arguments]:
        """The batches of an epoch from the given one on."""
        if not self.data:
            yield from [()] * (1 - batch)
            return
        x, order = self._epoch(epoch)
        for start in range(batch * self.size, len(order), self.size):
            rows = order[start : start + self.size]
            yield (x[rows], *(tensor[rows] for tensor in self.data[1:]))

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        if self._ready is None or self._ready[0] != epoch:
            x = self.data[0]
            kept = self._ready[1] if self._ready and self.mode != "dynamic" else None
            rows = binarize(x, self.mode, self.seed, epoch) if kept is None else kept
            self._ready = epoch, rows, epoch_order(len(x), self.seed, epoch).to(x.device)
        return self._ready[1:]
