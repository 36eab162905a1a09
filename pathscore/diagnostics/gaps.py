"""Why the ELBO is below log p(x): the share of the amortisation and the share of the guide's family.

`gaps(model, guide, args) -> Gaps`, per data point in nats:

    log p(x) − ELBO(guide)  =  [ELBO(best) − ELBO(guide)]  +  [log p(x) − ELBO(best)]
                                   amortisation gap               approximation gap

"best" is the guide with the parameters of its distributions re-optimised for each data point: every unconstrained
parameter (mean, log-scale, logits) of every latent site gets an additive offset of its own per data point, starting
at 0, and Adam raises the ELBO of each point; reparameterised sites by the path, the others by the score function
with a leave-one-out baseline. With one latent site that is the best member of the family; with several, where q(z2 |
z1) keeps its dependence on z1 up to an offset, the amortisation gap found is a lower bound of the true one.

References: Cremer, Li & Duvenaud 2018, Inference suboptimality in variational autoencoders; Kool, van Hoof & Welling
2019, Buy 4 REINFORCE samples, get a baseline for free!
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from pathscore.diagnostics.importance import Importance, importance
from pathscore.diagnostics.layout import Layout
from pathscore.diagnostics.offsets import Offsets
from pathscore.diagnostics.programs import draw, prepare
from pathscore.diagnostics.scoring import total_log_prob
from pathscore.diagnostics.seeding import seeded
from pathscore.errors import UsageError


@dataclass(frozen=True)
class Gaps:
    """Importance summaries of the guide as it is and re-optimised, on the same data points, (N,) each."""

    guide: Importance
    best: Importance

    @property
    def log_evidence(self) -> np.ndarray:
        """log p(x): the larger of two lower bounds, both of which are too low in expectation."""
        return np.maximum(self.guide.log_evidence, self.best.log_evidence)

    @property
    def amortisation(self) -> np.ndarray:
        """ELBO(best) − ELBO(guide), nats."""
        return self.best.elbo - self.guide.elbo

    @property
    def approximation(self) -> np.ndarray:
        """log p(x) − ELBO(best), nats."""
        return self.log_evidence - self.best.elbo


def gaps(
    model: Callable,
    guide: Callable,
    args: tuple,
    *,
    draws: int = 1000,
    steps: int = 300,
    particles: int = 8,
    lr: float = 0.05,
    seed: int | None = None,
) -> Gaps:
    """Re-optimise the guide for every row of `args` and compare, with `draws` importance draws each.

    Raises UsageError for latents outside a plate over the data, and for distributions that can't be rebuilt from
    their parameters.
    """
    with seeded(seed):
        layout = prepare(model, guide, args)
        if not layout.common:
            raise UsageError(
                "the amortisation gap is that of a guide which computes parameters for each data point; here all data "
                "points share a latent"
            )
        free = Offsets(layout.nesting)
        with torch.enable_grad():
            optimise(model, free(guide), layout, args, free, steps, particles, lr)
        with torch.no_grad():
            pair = [draw(model, q, layout, draws, args).log_weight for q in (guide, free(guide))]
    return Gaps(*(importance(log_w.reshape(draws, -1)) for log_w in pair))


def optimise(model, guide, layout: Layout, args, free: Offsets, steps: int, particles: int, lr: float) -> None:
    """Adam on the offsets alone; they end at their average over the second half of the steps, which is less noisy."""
    draw(model, guide, layout, particles, args)  # makes the offsets
    parameters = list(free.offsets.values())
    if not parameters:
        raise UsageError("the guide has no distribution whose parameters could be re-optimised")
    adam = torch.optim.Adam(parameters, lr=lr)
    totals = [torch.zeros_like(p) for p in parameters]
    for step in range(steps):
        found = draw(model, guide, layout, particles, args, extra=partial(_score_sites, layout, particles))
        gradients = torch.autograd.grad(-_surrogate(found.log_weight, found.extra["score"]), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        adam.step()
        for total, parameter in zip(totals, parameters, strict=True):
            total += parameter.detach() * (step >= steps // 2)
    with torch.no_grad():
        for parameter, total in zip(parameters, totals, strict=True):
            parameter.copy_(total / (steps - steps // 2))


def _score_sites(layout: Layout, particles: int, _, nodes: dict[str, dict]) -> dict[str, torch.Tensor]:
    """log q of the sites that have no path to their parameters, (S, *common)."""
    score = {n: node for n, node in nodes.items() if not node["is_observed"] and not node["fn"].has_rsample}
    return {"score": total_log_prob(score, layout, particles if layout.vectorised else 1)}


def _surrogate(log_w: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """A scalar with the gradient of Σ_n ELBO_n: the path through log w, and leave-one-out score terms."""
    others = (log_w.sum(0) - log_w) / max(len(log_w) - 1, 1)
    return (log_w + (log_w - others).detach() * log_q).mean(0).sum()
