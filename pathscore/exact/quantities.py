"""What follows from a `Table` by exact summation: the ELBO, its gradient, the evidence and the posterior.

All have the signature `quantity(model, guide, *args, **options)`, with options as in `tabulate`. Every quantity except
`posterior` is differentiable in the parameters. A warning says where quadrature has not converged (`accuracy`). B data
points, S joint states, K draws. A site's *frames* are the plates that it lies in. A term with frames F depends only on
latent sites whose frames are within F.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from pathscore.errors import UsageError
from pathscore.exact.accuracy import approximate, checked, same_random_numbers
from pathscore.exact.enumeration import NODES, Table, tabulate
from pathscore.exact.rows import union

Factors = dict[frozenset, torch.Tensor]


@checked
def elbo(model, guide, *args, **options) -> torch.Tensor:
    """The exact ELBO, a differentiable scalar.

        Σ_z q(z | x) [ Σ scaled log p − Σ scaled log q ]

    Scales (subsampled plates, KL weights) and masks multiply the terms as in `Trace_ELBO`. They do not multiply the
    probabilities. Raises UsageError as `tabulate` does.
    """
    table = tabulate(model, guide, *args, **options)
    costs: Factors = {}
    for sign, terms in ((1.0, table.log_p), (-1.0, table.log_q)):
        for term in terms:
            _add(costs, term.frames, sign * table.own(term.frames, term.scaled, term.name))
    total = torch.zeros(())
    for frames, cost in costs.items():
        weight = log_weight(table, frames).exp()
        # A state of probability 0 adds 0, even if its cost is infinite.
        total = total + (weight * torch.where(weight > 0, cost, 0.0)).sum()
    return total


def gradient(model, guide, *args, params, of=elbo, **options) -> tuple[torch.Tensor, ...]:
    """The exact gradient of the ELBO (not of the loss) with respect to `params`; 0 for parameters that have no effect.

    params: an iterable of leaf tensors, for example `[*model.parameters(), *guide.parameters()]`.
    of: another quantity of this package, for example `importance_bound`. Its options are passed as keyword arguments.
    """
    params = list(params)
    flat = partial(_flat_gradient, params, of)
    if hasattr(of, "unchecked"):  # a quantity by summation; those of `gaussian` have a closed form
        flat = checked(flat, name="gradient", floor=0.01)
    found = flat(model, guide, *args, **options).split([p.numel() for p in params])
    return tuple(g.reshape(p.shape).to(p) for p, g in zip(params, found, strict=True))


@torch.enable_grad()
def _flat_gradient(params: list[torch.Tensor], of: Callable, model, guide, *args, **options) -> torch.Tensor:
    """The gradient as one vector."""
    value = getattr(of, "unchecked", of)(model, guide, *args, **options).sum()
    # A program may hold tensors with a graph to the parameters; the coarser rules use the same graph.
    grads = torch.autograd.grad(value, params, allow_unused=True, retain_graph=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(params, grads, strict=True)])


def _add(factors: Factors, frames: frozenset, tensor: torch.Tensor) -> None:
    factors[frames] = factors[frames] + tensor if frames in factors else tensor


def log_weight(table: Table, frames: frozenset) -> torch.Tensor:
    """log of q's weight of the latent sites within the frames, (n_1, …, n_L, *plates)."""
    inside = [s for s in table.latents if s.frames <= frames]
    return sum((table.own(s.frames, table.log_weight[s.name], s.name) for s in inside), torch.zeros(()))


@checked
def log_evidence(model, guide, *args, **options) -> torch.Tensor:
    """log p(x), unscaled, for each member of the plates that all sites share: (B,) for local latents only.

        log Σ_z p(x, z)        innermost plates first: log Σ over the states, then Σ over a plate's members

    A global latent couples the data points, so the result is one scalar. The guide says which sites are latent, and
    where the quadrature nodes of continuous sites lie. Raises UsageError as `tabulate` does, for a subsampled plate
    beside a global latent (the evidence of the data cannot be computed from a subsample), and for plates that cross.
    """
    table = tabulate(model, guide, *args, **options)
    keep = shared_frames(table)
    return _eliminate(table, _joint_factors(table), keep)


def shared_frames(table: Table) -> frozenset:
    """The plates that every site lies in; UsageError where another plate is subsampled."""
    every = [s.frames for s in table.latents] + [t.frames for t in table.log_p]
    keep = frozenset.intersection(*every) if every else frozenset()
    for frame in union(every) - keep:
        if frame.full_size is not None and frame.full_size != frame.size:
            raise UsageError(
                f"plate {frame.name!r} is subsampled but a site lies outside it: log p(x) needs all "
                f"{frame.full_size} of its members; run the plate without subsample_size"
            )
    return keep


def _joint_factors(table: Table) -> Factors:
    """log p(x, z) and the measure of the nodes, summed by plates.

    The prior of a latent site is not masked, so a masked data point adds log Σ_z p(z) = 0.
    """
    factors: Factors = {}
    latent = {s.name for s in table.latents}
    for term in table.log_p:
        log = term.bare if term.name in latent else term.masked
        _add(factors, term.frames, table.own(term.frames, log, term.name))
    for s in table.latents:
        _add(factors, s.frames, table.own(s.frames, table.log_measure[s.name], s.name))
    return factors


def _eliminate(table: Table, factors: Factors, keep: frozenset) -> torch.Tensor:
    """Sum the latents out, innermost plates first, and keep the plates in `keep`."""
    factors = {keep: torch.zeros(()), **factors}
    while True:
        frames = max(factors, key=len)  # the largest is contained in no other
        axes = [i for i, s in enumerate(table.latents) if s.frames == frames]
        log = factors.pop(frames)
        log = log.logsumexp(axes, keepdim=True) if axes else log
        if frames == keep:
            depth = max((-f.dim for f in keep), default=0)
            return log.reshape(log.shape[log.dim() - depth :])
        outer = union(s.frames for s in table.latents if s.frames < frames) | keep
        if outer == frames:
            raise UsageError(
                f"plates {sorted(f.name for f in frames)} cross: their latent sites cannot be summed "
                "out plate by plate; make one of the plates part of the event (.to_event)"
            )
        log = log.sum([f.dim for f in frames - outer], keepdim=True)
        _add(factors, outer, log)


@dataclass(frozen=True)
class Posterior:
    """p(z | x) over the joint states of one member of the innermost plates.

    `probs` (n_1, …, n_L, *plates) sums to 1 over the site axes; `sites` names these axes; `values[name]` has
    shape (n_1, …, n_L, *plates, *event).
    """

    sites: tuple[str, ...]
    probs: torch.Tensor
    values: dict[str, torch.Tensor]

    def marginal(self, site: str) -> torch.Tensor:
        """Probabilities of the joint states of one site's event elements, (n, *plates)."""
        others = [i for i, name in enumerate(self.sites) if name != site]
        return self.probs.sum(others) if others else self.probs

    def mean(self, site: str) -> torch.Tensor:
        """E[z | x] of one site, (*plates, *event)."""
        axes = list(range(len(self.sites)))
        value = self.values[site].to(self.probs)
        weight = self.probs.reshape(*self.probs.shape, *(1,) * (value.dim() - self.probs.dim()))
        return (weight * value).sum(axes)


def posterior(model, guide, *args, nodes: int = NODES, check: bool = True, **options) -> Posterior:
    """The exact posterior of the latent sites, not differentiable.

        p(z = r | x) = ∂ log p(x) / ∂ log p(x, z = r)

    One backward pass through the summation gives the marginals of global and local latents.
    Raises UsageError as `log_evidence` does, and when no plate contains all the others (there is no joint table).
    """
    if check and approximate(model, guide, args, options, nodes):
        with same_random_numbers(), torch.no_grad():  # warns where the normaliser has not converged
            log_evidence(model, guide, *args, nodes=nodes, **options)
    table = tabulate(model, guide, *args, nodes=nodes, **options)
    inner = union(s.frames for s in table.latents)
    if not any(s.frames == inner for s in table.latents):
        raise UsageError(
            "latent sites lie in plates side by side: their posterior does not fit into one table; call "
            "posterior on a program with one of the plates"
        )
    factors = {frames: log.detach() for frames, log in _joint_factors(table).items()}
    shape = torch.broadcast_shapes(*(log.shape for frames, log in factors.items() if frames <= inner))
    tilt = torch.zeros(shape, dtype=factors[inner].dtype, device=factors[inner].device, requires_grad=True)
    _add(factors, inner, tilt)
    with torch.enable_grad():
        (probs,) = torch.autograd.grad(_eliminate(table, factors, shared_frames(table)).sum(), tilt)
    return Posterior(
        tuple(s.name for s in table.latents), probs, {name: value.detach() for name, value in table.values.items()}
    )
