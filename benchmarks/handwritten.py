"""The yardstick: the same model, loss and optimiser in plain PyTorch, as one would write it by hand for speed.

`STEPS[latent](case) -> step`, where `step(x) -> loss` draws z, sums the negative ELBO, backpropagates and lets fused
Adam move: one pass through encoder and decoder, logits kept, no distribution objects. The Bernoulli step uses the
score function with the cost of each datum, as Pyro does inside a plate.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cases import Case

Step = Callable[[Tensor], float]


def networks(case: Case, raw: int) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder: one hidden layer of tanh each."""
    encoder = nn.Sequential(nn.Linear(case.data_size, case.hidden), nn.Tanh(), nn.Linear(case.hidden, raw))
    decoder = nn.Sequential(nn.Linear(case.latents, case.hidden), nn.Tanh(), nn.Linear(case.hidden, case.data_size))
    return encoder, decoder


def adam_step(parameters: list[Tensor], loss_of: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Step:
    """Backpropagate the second of `loss_of(x)`, move, and report the first; both are means over the batch."""
    adam = torch.optim.Adam(parameters, lr=1e-3, fused=True)

    def step(x: Tensor) -> float:
        loss, surrogate = loss_of(x)
        surrogate.backward()
        adam.step()
        adam.zero_grad(set_to_none=True)
        return loss.item()

    return step


def normal_step(case: Case) -> Step:
    """Pathwise; z ~ N(μ, σ²) and a sampled KL, as `Trace_ELBO` takes it."""
    encoder, decoder = networks(case, 2 * case.latents)

    def loss_of(x: Tensor) -> tuple[Tensor, Tensor]:
        loc, raw = encoder(x - 0.5).chunk(2, -1)
        scale = F.softplus(raw) + 1e-6
        eps = torch.randn_like(loc)
        z = loc + scale * eps
        distortion = F.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
        loss = (distortion + 0.5 * (z.square() - eps.square()).sum() - scale.log().sum()) / len(x)
        return loss, loss

    return adam_step([*encoder.parameters(), *decoder.parameters()], loss_of)


def bernoulli_step(case: Case) -> Step:
    """Score function: cost of a datum × ∇ log q."""
    encoder, decoder = networks(case, case.latents)
    log_half = torch.tensor(0.5).log()

    def loss_of(x: Tensor) -> tuple[Tensor, Tensor]:
        logits = encoder(x - 0.5)
        z = torch.bernoulli(logits.detach().sigmoid())
        log_q = -F.binary_cross_entropy_with_logits(logits, z, reduction="none").sum(-1)
        distortion = F.binary_cross_entropy_with_logits(decoder(2 * z - 1), x, reduction="none").sum(-1)
        cost = distortion + log_q - case.latents * log_half  # (B,)
        return cost.detach().mean(), (distortion + cost.detach() * log_q).mean()

    return adam_step([*encoder.parameters(), *decoder.parameters()], loss_of)


STEPS: dict[str, Callable[[Case], Step]] = {"normal": normal_step, "bernoulli": bernoulli_step}
