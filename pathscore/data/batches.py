"""Batches as slices: `Batches(data, size, seed, binarize).rest(epoch, batch)` yields tuples of tensors of B ≤ `size`
rows.

An epoch binarises the rows x of the whole set and reads them in the order `epoch_order(N, seed, epoch)`. A batch is a
pure function of (seed, epoch, batch), so a run that is resumed within an epoch gets the same batches.
"""

from collections.abc import Iterator

from torch import Tensor

from pathscore.data.dataset import Arguments
from pathscore.data.epochs import binarize, epoch_order


class Batches:
    """Batches of `size` rows of `data`, tensors with the same first axis N; the last batch holds the remaining rows.

    Only the first tensor, x, is binarised. Without data, (), an epoch is one empty batch.
    """

    def __init__(self, data: Arguments, size: int, seed: int, mode: str):
        self.data, self.size, self.seed, self.mode = data, size, seed, mode
        self._ready: tuple[int, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return -(-len(self.data[0]) // self.size) if self.data else 1

    def rest(self, epoch: int, batch: int = 0) -> Iterator[Arguments]:
        """The batches of an epoch, starting at number `batch`."""
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
