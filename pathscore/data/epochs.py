"""The binarised data and the order of the rows in an epoch, as pure functions of (seed, epoch).

    binarize(x, mode, seed, epoch) : x (N, X) in [0, 1] -> (N, X) of zeros and ones
    epoch_order(n, seed, epoch)    : -> permutation (N,) int64; a batch is a slice of it, `x[order[start:stop]]`

Row i depends only on (seed, epoch, i). It does not depend on the batch size, the chunk size, the device, or earlier
draws. A resumed run therefore sees the same data as an uninterrupted one.
"""

import hashlib

import torch
from torch import Tensor

from pathscore.errors import unknown

BINARIZE = ("static", "dynamic", "threshold", "none")

CHUNK_ROWS = 4096
"""Rows of random numbers in memory at once: 13 MB for 784 pixels."""


def _generator(purpose: str, seed: int, epoch: int) -> torch.Generator:
    """A CPU generator for one purpose in one epoch. Its seed is a hash, so (1, 2) and (2, 1) give unrelated streams."""
    digest = hashlib.blake2b(f"{purpose} {seed} {epoch}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def binarize(x: Tensor, mode: str, seed: int = 0, epoch: int = 0) -> Tensor:
    """Turn grey values into zeros and ones.

    mode "static"   : b ~ Bernoulli(x), the same draw in every epoch
         "dynamic"  : b ~ Bernoulli(x), drawn anew each epoch
         "threshold": b = 1[x > ½]
         "none"     : x itself
    x: (N, X) in [0, 1], the whole set, on any device and of any float dtype. The result has the same device and dtype.
    Values 0 and 1 do not change.

    Raises `UsageError` for an unknown mode.

    References:
        On the quantitative analysis of deep belief networks. R. Salakhutdinov, I. Murray, 2008 (static).
        Importance weighted autoencoders. Y. Burda, R. Grosse, R. Salakhutdinov, 2016 (dynamic).
    """
    if mode not in BINARIZE:
        raise unknown("binarize", mode, BINARIZE)
    if mode == "none":
        return x
    if mode == "threshold":
        return (x > 0.5).to(x.dtype)
    generator = _generator("binarize", seed, epoch if mode == "dynamic" else 0)
    out = torch.empty_like(x)
    for rows, into in zip(x.split(CHUNK_ROWS), out.split(CHUNK_ROWS), strict=True):
        u = torch.rand(rows.shape, generator=generator)  # [0, 1): one is always below 1, none below 0
        into.copy_(u.to(x.device) < rows)
    return out


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """A uniform permutation of 0 … n−1, (n,) int64 on the CPU."""
    return torch.randperm(n, generator=_generator("order", seed, epoch))
