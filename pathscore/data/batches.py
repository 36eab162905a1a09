"""Batches as slices: `Batches(x, size, seed, binarize).rest(epoch, batch)` yields (B, X) tensors, B ≤ `size`.

An epoch is the whole set binarised at once, read in the order `epoch_order(N, seed, epoch)`: a pure function of
(seed, epoch, batch), so a run that resumes in the middle of an epoch sees the batches it would have seen.
"""

from collections.abc import Iterator

from torch import Tensor

from pathscore.data.epochs import binarize, epoch_order


class Batches:
    """The rows of x (N, X) in batches of `size`; the last batch of an epoch holds what is left."""

    def __init__(self, x: Tensor, size: int, seed: int, mode: str):
        self.x, self.size, self.seed, self.mode = x, size, seed, mode
        self._ready: tuple[int, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return -(-len(self.x) // self.size)

    def rest(self, epoch: int, batch: int = 0) -> Iterator[Tensor]:
        """The batches of an epoch from the given one on."""
        data, order = self._epoch(epoch)
        for start in range(batch * self.size, len(order), self.size):
            yield data[order[start : start + self.size]]

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        if self._ready is None or self._ready[0] != epoch:
            kept = self._ready[1] if self._ready and self.mode != "dynamic" else None
            data = binarize(self.x, self.mode, self.seed, epoch) if kept is None else kept
            self._ready = epoch, data, epoch_order(len(self.x), self.seed, epoch).to(self.x.device)
        return self._ready[1:]
