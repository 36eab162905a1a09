"""Weight the score: ∇E_q[f] = E_q[(f(z) − b) ∇log q(z)], for any distribution and any cost, with any baselines b."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pathscore.estimators.base import Estimator, Site
from pathscore.estimators.baselines import Baseline, GroupMean, LeaveOneOut, MovingAverage, NeuralBaseline


class Score(Estimator):
    """The score-function estimator (REINFORCE), with the baselines it is given.

    `Score(MovingAverage(), NeuralBaseline())` chains them: each predicts what the earlier ones left.

    References:
        Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning. Williams, 1992.
        Black Box Variational Inference. Ranganath, Gerrish, Blei, 2014.
    """

    name = "score"
    formula = "(f(z) − b) ∇log q(z)"
    reference = "Williams 1992"

    def __init__(self, *baselines: Baseline) -> None:
        super().__init__()
        self.baselines = nn.ModuleList(baselines)

    def refusal(self, fn: Any, particles: int = 1) -> str | None:
        # A ModuleList types its members as modules; these are baselines.
        needed = max([b.min_particles for b in self.baselines], default=1)  # type: ignore[union-attr]
        if particles < needed:
            return f"{self.name} needs --particles {needed} or more, got {particles}"
        return super().refusal(fn, particles)

    def setup(self, fn: Any, context: Tensor) -> None:
        for baseline in self.baselines:
            baseline.setup(fn, context)  # type: ignore[operator]  # a baseline, typed as module

    def predictions(self, site: Site) -> list[Tensor]:
        return [baseline(site) for baseline in self.baselines]

    def signal(self, site: Site) -> Tensor:
        """What multiplies the score: the cost less the baselines."""
        return site.cost[0] - sum(p.detach() for p in self.predictions(site))

    def surrogate(self, site: Site) -> Tensor:
        return self.signal(site) * site.log_q

    def aux_loss(self, site: Site) -> Tensor | None:
        residual, losses = site.cost[0], []
        for baseline, prediction in zip(self.baselines, self.predictions(site), strict=True):
            if baseline.learned:
                losses.append((residual - prediction).square().mean())
            residual = residual - prediction.detach()
        return torch.stack(losses).sum() if losses else None

    def observe(self, site: Site) -> None:
        residual = site.cost[0]
        for baseline, prediction in zip(self.baselines, self.predictions(site), strict=True):
            baseline.observe(residual)  # type: ignore[operator]  # a baseline, typed as module
            residual = residual - prediction.detach()


class ScoreAverage(Score):
    """Score function with a moving-average baseline."""

    name = "score-avg"
    formula = "(f(z) − b) ∇log q(z), b the moving average of f"
    reference = "Mnih & Gregor 2014"

    def __init__(self, decay: float = 0.9) -> None:
        super().__init__(MovingAverage(decay))


class NVIL(Score):
    """Score function with the signal centred by a moving average and by a network of its inputs.

    With `normalise=True` the signal is also divided by max(1, running standard deviation), as in the paper; that
    rescales the gradient (its direction's mean is kept, its size is not), so it is off by default.

    References:
        Neural Variational Inference and Learning in Belief Networks. Mnih, Gregor, 2014.
    """

    name = "nvil"
    formula = "(f(z) − b − b(x)) ∇log q(z)"
    reference = "Mnih & Gregor 2014"
    variance: Tensor

    def __init__(self, hidden: int = 100, decay: float = 0.9, normalise: bool = False) -> None:
        super().__init__(MovingAverage(decay), NeuralBaseline(hidden))
        self.decay, self.normalise = decay, normalise
        self.register_buffer("variance", torch.ones(()))

    def signal(self, site: Site) -> Tensor:
        signal = super().signal(site)
        return signal / self.variance.sqrt().clamp(min=1.0) if self.normalise else signal

    def observe(self, site: Site) -> None:
        if self.normalise:
            with torch.no_grad():
                self.variance.lerp_(Score.signal(self, site).square().mean(), 1 - self.decay)
        super().observe(site)


class RLOO(Score):
    """Score function with the mean of the other K − 1 particles as baseline: (f(z_k) − mean_{j≠k} f(z_j)) ∇log q(z_k).

    References:
        Buy 4 REINFORCE Samples, Get a Baseline for Free! Kool, van Hoof, Welling, 2019.
    """

    name = "rloo"
    formula = "(f(z_k) − mean_{j≠k} f(z_j)) ∇log q(z_k)"
    reference = "Kool, van Hoof & Welling 2019"
    min_particles = 2
    compares_particles = True

    def __init__(self) -> None:
        super().__init__(LeaveOneOut())


class GroupBaseline(Score):
    """Score function with the mean of all K particles as baseline, the own one included: biased.

    Its mean is (1 − 1/K) times the gradient: the own cost within the baseline takes 1/K of it away. The direction is
    right; `rloo` is the same signal times K / (K − 1), and exact.

    References:
        Understanding R1-Zero-like training: a critical perspective. Liu, Chen, Li, Qi, Pang, Du, Lee, Lin, 2025.
    """

    name = "group-mean"
    formula = "(f(z_k) − mean_j f(z_j)) ∇log q(z_k)"
    reference = "Liu et al. 2025"
    unbiased = False
    min_particles = 2
    compares_particles = True

    def __init__(self) -> None:
        super().__init__(GroupMean())


class GroupNormalised(GroupBaseline):
    """Group-relative signal: the cost less the mean of the K particles, divided by their standard deviation: biased.

    The division weighs a site by 1 / (standard deviation of its cost + eps), so that the sites (the questions) whose
    rewards hardly differ count most, and the size of the reward does not matter. With `leave_one_out=True` mean and
    deviation are those of the other K − 1 particles: where these are equal, the signal is their difference over `eps`.

    References:
        DeepSeekMath: pushing the limits of mathematical reasoning in open language models. Shao, Wang, Zhu, Xu, Song,
        Bi, Zhang, Zhang, Li, Wu, Guo, 2024 (equation 4, outcome supervision; without clipping and without its KL term).
    """

    name = "grpo"
    formula = "(f(z_k) − mean_j f(z_j)) / (std_j f(z_j) + ε) ∇log q(z_k)"
    reference = "Shao et al. 2024"

    def __init__(self, eps: float = 1e-4, leave_one_out: bool = False) -> None:
        super().__init__()
        self.eps, self.leave_one_out = eps, leave_one_out

    def refusal(self, fn: Any, particles: int = 1) -> str | None:
        if self.leave_one_out and particles < 3:
            return f"{self.name}(leave_one_out=True) needs --particles 3 or more, got {particles}"
        return super().refusal(fn, particles)

    def signal(self, site: Site) -> Tensor:
        cost, centred = site.cost[0], super().signal(site)
        if not self.leave_one_out:
            return centred / (cost.std(0) + self.eps)
        count = len(cost)
        # The sum of squares about the mean of the others, from that about the mean of all.
        others = (centred.square().sum(0) - centred.square() * count / (count - 1)).clamp(min=0.0)
        return centred * count / (count - 1) / ((others / (count - 2)).sqrt() + self.eps)
