"""Gauss rules: `hermite` for the Normal, `laguerre` and `between_kinks` for the Laplace, (base, nodes, …) -> Rule.

Their nodes move with the parameters, so the gradients of the sums are the gradients of the expectations.

References: Golub & Welsch, "Calculation of Gauss quadrature rules", 1969.
"""

import math

import numpy as np
import torch

from pathscore.exact.rule import Rule, constant, weighted

GAUSS_LIMIT = 180  # the weights of further Gauss nodes are below 1e-150, and their computation overflows


def hermite(base, nodes: int) -> Rule:
    """Normal: z = μ + σ t, with t and weights of Gauss–Hermite for the standard Normal."""
    t, weight = np.polynomial.hermite_e.hermegauss(min(nodes, GAUSS_LIMIT))
    log_weight = np.log(weight / math.sqrt(2 * math.pi))

    def place(base, index):
        value = base.loc + base.scale * constant(t, index, base.loc)
        return weighted(base, value, constant(log_weight, index, base.loc).expand_as(value))

    return Rule(len(t), place)


def laguerre(base, nodes: int) -> Rule:
    """Laplace: z = μ ± b t, with t and weights of Gauss–Laguerre on each side of the kink at μ."""
    half, half_weight = np.polynomial.laguerre.laggauss(min(max(nodes, 2), GAUSS_LIMIT) // 2)
    t, log_weight = np.concatenate([-half, half]), np.log(np.tile(half_weight / 2, 2))

    def place(base, index):
        value = base.loc + base.scale * constant(t, index, base.loc)
        return weighted(base, value, constant(log_weight, index, base.loc).expand_as(value))

    return Rule(len(t), place)


def between_kinks(base, nodes: int, kink: torch.Tensor) -> Rule:
    """Laplace with a second kink in the model: Laguerre below and above the two, Legendre in between.

    The place of the second kink may depend on parameters and on upstream draws; the rule takes its place in one run.
    Each panel then integrates a smooth function. The rule is exact for the prior if the place is the same in all rows.
    """
    third = max(1, min(nodes, GAUSS_LIMIT) // 3)
    (tail, tail_weight), (inner, inner_weight) = (
        np.polynomial.laguerre.laggauss(third),
        np.polynomial.legendre.leggauss(third),
    )
    kind = np.repeat([0, 1, 2], third)
    t = np.concatenate([tail, (inner + 1) / 2, tail])
    log_rule = np.log(np.concatenate([tail_weight / 2, inner_weight / 2, tail_weight / 2]))

    def place(base, index):
        loc, scale = base.loc, base.scale
        low, high = torch.minimum(loc, kink.to(loc)), torch.maximum(loc, kink.to(loc))
        gap = (high - low).clamp_min(torch.finfo(loc.dtype).tiny)  # equal kinks: weights of 0, and no NaN
        at, log_weight = constant(t, index, loc), constant(log_rule, index, loc)
        which = torch.as_tensor(kind, device=loc.device)[index.to(loc.device)]
        value = torch.where(which == 0, low - scale * at, torch.where(which == 1, low + gap * at, high + scale * at))
        beyond = torch.where(which == 0, low - loc, loc - high) / scale  # log of twice q's mass in that tail
        log_weight = log_weight + torch.where(which == 1, base.log_prob(value) + gap.log(), beyond)
        return weighted(base, value, log_weight)

    return Rule(3 * third, place)
