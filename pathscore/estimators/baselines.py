"""Baselines for the score function: predictions of the cost that never see the sample they are used on.

Each is a module `baseline(site) -> (K, *plates)`; several compose, each predicting what the earlier ones left.  Their
own regression loss trains them; their gradients never reach the guide, for they see detached inputs only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pathscore.estimators.base import Site


def small_net(inputs: int, hidden: int, like: Tensor) -> nn.Module:
    """One tanh layer to one number, constant at first: a learned part starts where it does nothing."""
    last = nn.Linear(hidden, 1)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), last).to(like)


class Baseline(nn.Module):
    """Predicts a site's cost from what was known before the draw."""

    compares_particles = False
    min_particles = 1
    learned = False

    def setup(self, fn: Any, context: Tensor) -> None:
        """Build what is learned once shapes are known."""

    def forward(self, site: Site) -> Tensor:
        """The prediction, (K, *plates)."""
        raise NotImplementedError

    def observe(self, residual: Tensor) -> None:
        """Update running statistics with the cost left by the earlier baselines, (K, *plates)."""


class MovingAverage(Baseline):
    """b ← decay · b + (1 − decay) · mean cost: one number a site, for any batch size, kept in a buffer.

    References:
        Neural Variational Inference and Learning in Belief Networks. Mnih, Gregor, 2014 (the input-free baseline).
    """

    mean: Tensor
    started: Tensor

    def __init__(self, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("started", torch.zeros(()))

    def forward(self, site: Site) -> Tensor:
        return self.mean.expand_as(site.cost[0])

    @torch.no_grad()
    def observe(self, residual: Tensor) -> None:
        decay = self.decay * self.started  # the first step has no past to average with
        self.mean.mul_(decay).add_((1 - decay) * residual.mean())
        self.started.fill_(1.0)


class NeuralBaseline(Baseline):
    """An input-dependent baseline: a network of the observations and of the values drawn upstream.

    References:
        Neural Variational Inference and Learning in Belief Networks. Mnih, Gregor, 2014.
    """

    learned = True

    def __init__(self, hidden: int = 100) -> None:
        super().__init__()
        self.hidden = hidden
        self.net: nn.Module = nn.Identity()

    def setup(self, fn: Any, context: Tensor) -> None:
        if isinstance(self.net, nn.Identity):
            self.net = small_net(context.shape[-1], self.hidden, context)

    def forward(self, site: Site) -> Tensor:
        return self.net(site.context).squeeze(-1)


class LeaveOneOut(Baseline):
    """The mean cost of the other K − 1 particles.

    References:
        Buy 4 REINFORCE Samples, Get a Baseline for Free! Kool, van Hoof, Welling, 2019.
        Variational Inference for Monte Carlo Objectives. Mnih, Rezende, 2016.
    """

    compares_particles = True
    min_particles = 2

    def forward(self, site: Site) -> Tensor:
        cost = site.cost[0]
        return (cost.sum(0) - cost) / (len(cost) - 1)


class GroupMean(Baseline):
    """The mean cost of all K particles, the particle's own included.

    It depends on the draw whose score it multiplies: E[f ∇log q] of that draw is lost, one K-th of the gradient.

    References:
        Understanding R1-Zero-like training: a critical perspective. Liu, Chen, Li, Qi, Pang, Du, Lee, Lin, 2025.
    """

    compares_particles = True
    min_particles = 2

    def forward(self, site: Site) -> Tensor:
        return site.cost[0].mean(0).expand_as(site.cost[0])
