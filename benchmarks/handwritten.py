"""The reference: the same model, loss and optimiser in plain PyTorch, written by hand for speed.

`handwritten(case) -> step`, where `step(x) -> loss` draws z, computes the negative ELBO, backpropagates and takes a
step of fused Adam. It makes one pass through the encoder, works with logits and makes no distribution objects. The
Bernoulli step is DiSARM: a draw and its antithetic partner go through the decoder as one batch of 2 B rows.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cases import Case

Step = Callable[[Tensor], float]
Loss = Callable[[Tensor], tuple[Tensor, Tensor]]


def handwritten(case: Case, wrap: Callable[[Loss], Loss] = lambda loss: loss) -> Step:
    """A step that backpropagates the second value of `loss_of(x)` and returns the first; both are batch means.

    wrap: applied to the loss function, for example `torch.compile`.
    """
    encoder = network(case.data_size, case.hidden, case.raw)
    decoder = network(case.latents, case.hidden, case.data_size)
    loss_of = wrap(LOSSES[case.latent](encoder, decoder))
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3, fused=True)

    def step(x: Tensor) -> float:
        loss, surrogate = loss_of(x)
        surrogate.backward()
        adam.step()
        adam.zero_grad(set_to_none=True)
        return loss.item()

    return step


def handwritten_graph(case: Case) -> Step:
    """`handwritten` as one CUDA graph: loss, backward pass and capturable Adam; one copy in, one number out."""
    encoder = network(case.data_size, case.hidden, case.raw)
    decoder = network(case.latents, case.hidden, case.data_size)
    loss_of = LOSSES[case.latent](encoder, decoder)
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3, fused=True, capturable=True)
    place, graph, stream = case.data(), torch.cuda.CUDAGraph(), torch.cuda.Stream()

    def work() -> Tensor:
        adam.zero_grad(set_to_none=True)
        loss, surrogate = loss_of(place)
        surrogate.backward()
        adam.step()
        return loss

    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        loss = work()

    def step(x: Tensor) -> float:
        place.copy_(x)
        graph.replay()
        return loss.item()

    step.memory = encoder, decoder, adam  # which the graph reads and writes, and does not keep
    return step


def network(inputs: int, hidden: int | None, outputs: int) -> nn.Module:
    """One hidden layer of tanh, or none."""
    if hidden is None:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))


def normal_loss(encoder: nn.Module, decoder: nn.Module) -> Loss:
    """Pathwise gradient; z ~ N(μ, σ²) and a sampled KL, as in `Trace_ELBO`."""

    def loss_of(x: Tensor) -> tuple[Tensor, Tensor]:
        loc, raw = encoder(x - 0.5).chunk(2, -1)
        scale = F.softplus(raw) + 1e-6
        eps = torch.randn_like(loc)
        z = loc + scale * eps
        distortion = F.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
        loss = (distortion + 0.5 * (z.square() - eps.square()).sum() - scale.log().sum()) / len(x)
        return loss.detach(), loss

    return loss_of


def bernoulli_loss(encoder: nn.Module, decoder: nn.Module) -> Loss:
    """DiSARM: ½ (f(b) − f(b̃)) (−1)^b̃ 1[b ≠ b̃] σ(|φ|), f the negative ELBO of a data point."""
    log_half = torch.tensor(0.5).log().item()

    def loss_of(x: Tensor) -> tuple[Tensor, Tensor]:
        logits = encoder(x - 0.5)  # (B, D)
        free, u = logits.detach(), torch.rand_like(logits)
        p = free.sigmoid()
        b = torch.stack((u < p, u > 1 - p)).to(x.dtype)  # (2, B, D): the draw and its partner
        distortion = F.binary_cross_entropy_with_logits(
            decoder(2 * b - 1), x.expand(2, *x.shape), reduction="none"
        ).sum(-1)
        log_q = -F.binary_cross_entropy_with_logits(free.expand_as(b), b, reduction="none").sum(-1)
        cost = (distortion + log_q - logits.shape[-1] * log_half).detach()  # (2, B)
        sign = (1 - 2 * b[1]) * (b[0] != b[1]) * free.abs().sigmoid()
        signal = 0.5 * (cost[0] - cost[1]).unsqueeze(-1) * sign
        return cost.mean(), distortion.mean() + (signal * logits).sum(-1).mean()

    return loss_of


LOSSES: dict[str, Callable[[nn.Module, nn.Module], Loss]] = {"normal": normal_loss, "bernoulli": bernoulli_loss}
