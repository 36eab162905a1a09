"""Antithetic pairs for discrete sites: a draw from u beside its partner from 1 − u, one counterfactual row a particle.

A Bernoulli is its own bit; a categorical becomes M − 1 stick-breaking bits, and the pair is taken of the bits
(Dong, Mnih & Tucker 2021).  Both members are draws from q, so DiSARM averages both into the bound.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pathscore.estimators.base import Estimator, Site
from pathscore.estimators.families import family_name, one_hot_like, stick_index, stick_logits, unwrap


def bit_logits(fn: Any) -> Tensor:
    """Logits of the independent bits behind one draw: (…) for Bernoulli, (…, M − 1) for a categorical of M classes."""
    logits = unwrap(fn).logits
    return logits if family_name(fn) == "bernoulli" else stick_logits(logits)


def from_bits(fn: Any, bits: Tensor) -> Tensor:
    """The site's value that the bits stand for."""
    family = family_name(fn)
    if family == "bernoulli":
        return bits
    index = stick_index(bits)
    return index if family == "categorical" else one_hot_like(index, unwrap(fn).logits)


def live_bits(bits: Tensor, partner: Tensor) -> Tensor:
    """Which bits of a stick can matter: those up to the end of the longer of the pair; the others have mean zero."""
    last = torch.maximum(stick_index(bits), stick_index(partner))
    position = torch.arange(bits.shape[-1], device=bits.device)
    return (position <= last[..., None]).to(bits.dtype)


class _Antithetic(Estimator):
    families = ("bernoulli", "onehot", "categorical")

    def rows(self, fn: Any) -> int:
        return 1

    def sample(self, fn: Any) -> tuple[Tensor, Any]:
        with torch.no_grad():
            probs = torch.sigmoid(bit_logits(fn))
            u = torch.rand_like(probs)
            bits, partner = self.pair(probs, u)
            return from_bits(fn, bits), (u, bits, partner)

    def pair(self, probs: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Bits of the draw and bits of its partner."""
        return (u < probs).to(probs.dtype), (1 - u < probs).to(probs.dtype)

    def branch(self, fn: Any, value: Tensor, noise: Any) -> Tensor:
        return from_bits(fn, noise[2])[None]

    def weights(self, site: Site) -> Tensor:
        return torch.full((2,), 0.5, dtype=site.cost.dtype, device=site.cost.device).reshape(
            2, *[1] * (site.cost.ndim - 1)
        )

    def surrogate(self, site: Site) -> Tensor:
        (u, bits, partner), logits = site.noise, bit_logits(site.fn)
        difference = (site.cost[0] - site.cost[1])[(...,) + (None,) * (logits.ndim - site.cost[0].ndim)]
        coefficient = self.coefficient(u, bits, partner, logits.detach())
        if family_name(site.fn) != "bernoulli":
            coefficient = coefficient * live_bits(bits, partner)
        terms = difference * coefficient * logits
        return terms.sum(tuple(range(site.cost[0].ndim, terms.ndim))) if terms.ndim > site.cost[0].ndim else terms

    def coefficient(self, u: Tensor, bits: Tensor, partner: Tensor, logits: Tensor) -> Tensor:
        """What multiplies f(b) − f(b̃) in each bit's logit gradient."""
        raise NotImplementedError


class ARM(_Antithetic):
    """Augment–REINFORCE–merge: (f(b) − f(b̃)) (½ − u), b = 1[u < σ(φ)], b̃ = 1[1 − u < σ(φ)].

    References:
        ARM: Augment-REINFORCE-Merge Gradient for Stochastic Binary Networks. Yin, Zhou, 2019.
    """

    name = "arm"
    formula = "(f(b) − f(b̃)) (½ − u)"
    reference = "Yin & Zhou 2019"

    def coefficient(self, u: Tensor, bits: Tensor, partner: Tensor, logits: Tensor) -> Tensor:
        return 0.5 - u


class DiSARM(_Antithetic):
    """ARM with u summed out: ½ (f(b) − f(b̃)) (−1)^b̃ 1[b ≠ b̃] σ(|φ|).

    On categoricals the pair is of stick-breaking bits (DisARM-SB).

    References:
        DisARM: An Antithetic Gradient Estimator for Binary Latent Variables. Dong, Mnih, Tucker, 2020.
        Coupled Gradient Estimators for Discrete Latent Variables. Dong, Mnih, Tucker, 2021.
    """

    name = "disarm"
    formula = "½ (f(b) − f(b̃)) (−1)^b̃ 1[b ≠ b̃] σ(|φ|)"
    reference = "Dong, Mnih & Tucker 2020, 2021"

    def coefficient(self, u: Tensor, bits: Tensor, partner: Tensor, logits: Tensor) -> Tensor:
        return 0.5 * (bits - partner) * torch.sigmoid(logits.abs())  # b − b̃ is (−1)^b̃ 1[b ≠ b̃]
