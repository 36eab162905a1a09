"""Moments of gradients, gathered batch by batch: `Moments().add(g)` for g (n, P), and the tests built on them.

Mean, variance and (for up to `COVARIANCE` coordinates) covariance are merged in double precision, so replicates are
never all in memory; the first ones are kept for histograms.

References:
    Updating Formulae and a Pairwise Algorithm for Computing Sample Variances. Chan, Golub, LeVeque, 1979.
    The Generalization of Student's Ratio. Hotelling, 1931.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.special import fdtrc
from torch import Tensor

COVARIANCE = 600
KEPT = 4_000_000
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Standard deviations below this share of the gradient's size are rounding, not noise."""


class Moments:
    """Running moments of n gradients of P coordinates.

    Attributes:
        count: n.
        mean, square: mean and Σ (g − mean)², (P,), in double precision.
        products: Σ (g − mean)(g − mean)ᵀ, (P, P), None for many coordinates.
        largest: largest |g|, (P,).
        kept: the first gradients, (m, P), at most four million numbers.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.square = self.largest = torch.zeros(())
        self.products: Tensor | None = None
        self.kept = torch.empty(0, 0)
        self.rounding = ROUNDING[torch.float64]

    def add(self, gradients: Tensor) -> None:
        """Merge a batch (n, P), on the CPU: not every device has double precision."""
        gradients = gradients.detach().cpu()
        self.rounding = ROUNDING.get(gradients.dtype, 1e-2)
        g = gradients.double()
        n, mean = len(g), g.mean(0)
        centred = g - mean
        new = Moments()
        new.count, new.mean, new.square = n, mean, centred.square().sum(0)
        new.largest = g.abs().amax(0)
        new.products = centred.T @ centred if g.shape[1] <= COVARIANCE else None
        self._merge(new)
        if self.kept.numel() + gradients.shape[1] <= KEPT:
            room = KEPT // gradients.shape[1] - len(self.kept)
            self.kept = gradients[:room] if not len(self.kept) else torch.cat([self.kept, gradients[:room]])

    def _merge(self, other: Moments) -> None:
        self.largest = torch.maximum(self.largest, other.largest)
        if self.count == 0:
            self.count, self.mean, self.square, self.products = other.count, other.mean, other.square, other.products
            return
        total = self.count + other.count
        apart, weight = other.mean - self.mean, self.count * other.count / total
        self.square = self.square + other.square + weight * apart.square()
        if self.products is not None and other.products is not None:
            self.products = self.products + other.products + weight * torch.outer(apart, apart)
        self.mean = self.mean + apart * (other.count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """Variance of one gradient, (P,); exactly 0 where it is rounding."""
        variance = self.square / max(1, self.count - 1)
        floor = (self.rounding * max(self.mean.abs().max().item(), variance.sqrt().max().item(), 1e-30)) ** 2
        return torch.where(variance > floor, variance, 0.0)

    def unseen(self, groups: Sequence[int]) -> Tensor:
        """What one draw that did not occur may have cost each coordinate's mean, (P,): largest |g| of its group / n.

        A bit that is set once in a million draws has a gradient of variance 0 in a thousand draws, and a mean that is
        wrong by more than any multiple of the standard error computed from them.
        """
        return torch.cat([g.amax().expand(len(g)) for g in self.largest.split(list(groups))]) / self.count

    def variance_error(self) -> float:
        """Standard error of the total variance: of the mean of ‖g − mean‖² over all n draws, from those kept."""
        squares = (self.kept.double() - self.mean).square().sum(1)
        return (squares.std() / math.sqrt(self.count)).item() if len(squares) > 1 else math.nan

    def squared_mean(self) -> float:
        """‖E g‖² without the share that noise adds to ‖mean‖²."""
        return max(0.0, (self.mean.square().sum() - self.variance.sum() / self.count).item())


def z_scores(moments: Moments, target: Tensor, further: Tensor | float = 0.0) -> Tensor:
    """(mean − target) / standard error, (P,).

    further: squared errors (P,) added to the squared standard errors: of the target where that was estimated, and of
    draws that did not occur (`Moments.unseen`).

    z = 0 where mean and target agree up to rounding; else ∞ where there is no error to divide by.
    """
    error = moments.mean - target
    standard = (moments.variance / moments.count + further).sqrt()
    same = error.abs() <= 100 * moments.rounding * max(target.abs().max().item(), 1e-30)
    z = torch.where(standard > 0, error / standard.clamp(min=1e-300), math.inf)
    return torch.where(same, 0.0, z)


def hotelling(moments: Moments, target: Tensor, further: Tensor | float = 0.0) -> float:
    """p-value of "the mean is `target`" over all coordinates at once.

        T² = (m − t)ᵀ (S/n)⁻¹ (m − t),    T² (n − p) / (p (n − 1)) ~ F(p, n − p)

    further: as in `z_scores`, added to the diagonal of S/n.
    NaN without a covariance, or with fewer than ten draws for each of the p directions that vary.
    """
    if moments.products is None:
        return math.nan
    n = moments.count
    moving = moments.variance > 0
    p = int(moving.sum())
    if p == 0 or n < 10 * p:
        return math.nan
    covariance = moments.products / (n - 1) / n + torch.diag(torch.zeros_like(target) + further)
    error, covariance = (moments.mean - target)[moving], covariance[moving][:, moving]
    scale = covariance.diagonal().sqrt()  # coordinates of very different size share one eigenproblem
    values, vectors = torch.linalg.eigh(covariance / torch.outer(scale, scale))
    kept = values > 1e-9 * values.max()
    p = int(kept.sum())
    t2 = ((vectors.T @ (error / scale))[kept].square() / values[kept]).sum().item()
    return float(fdtrc(p, n - p, t2 * (n - p) / (p * (n - 1))))


def cosines(gradients: Tensor, direction: Tensor) -> Tensor:
    """Cosine of each gradient (n, P) to a direction (P,); 0 for a gradient that is zero."""
    g, direction = gradients.double(), direction.double()
    norms = g.norm(dim=1) * direction.norm()
    return torch.where(norms > 0, g @ direction / norms.clamp(min=1e-300), 0.0)
