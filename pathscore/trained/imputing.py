"""Missing values: `impute(model, guide, args, missing, …)`, by Metropolis-within-Gibbs on the trained pair.

The target is p(z, x_m | x_o), x_o the observed and x_m the missing values of a data point. One step is

    x_m ~ p(x_m | z)                              exact, the values of x are independent given z
    z' ~ q(z | x_o, x_m), accepted with min(1, w(z')/w(z)),    w(z) = p(x, z) / q(z | x)

The acceptance makes the chain exact for any guide whose support covers the posterior: a poor guide makes it slow, not
wrong. The first quarter of the steps accepts every proposal, which moves the chain near the data quickly; the second
quarter is discarded too. The result is the mean of E[x_m | z] over the rest, of all chains.

References:
    Leveraging the exact likelihood of deep latent variable models. P.-A. Mattei, J. Frellsen, 2018.
    Stochastic backpropagation and approximate inference in deep generative models. D. J. Rezende, S. Mohamed,
    D. Wierstra, 2014 (the chain without acceptance).
"""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import pyro
import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import Independent

from pathscore.errors import UsageError
from pathscore.evaluation.weights import data_plate, plate_depth, sum_per_datum
from pathscore.exact.rows import GiveValues, plates, run_rows, site_terms

Rows = tuple[Tensor, ...]

STUCK = 0.01
"""Share of accepted proposals below which the result is doubtful."""


class State(NamedTuple):
    """A draw z of each row: its values by site, log w (B,), and the mean and a draw of x given z, each (B, X)."""

    values: dict[str, Tensor]
    log_w: Tensor
    mean: Tensor
    drawn: Tensor


def impute(
    model: Callable, guide: Callable, args: Rows, missing: Tensor, *, steps: int, chains: int
) -> tuple[Tensor, Tensor]:
    """The completed rows: with E[x_m | x_o] (N, X), and with the last draw of x_m of each chain (chains, N, X).

    args: data of a call, whose first tensor x (N, X) holds values that the program accepts where `missing` (N, X), a
    tensor of booleans, is true: they start the chains. Consumes random numbers as the programs do.

    Raises: UsageError for a program that does not observe x in a plate over the data points, with independent values.
    """
    data = tuple(tensor.repeat(chains, *[1] * (tensor.dim() - 1)) for tensor in args)
    run = Chains(model, guide, data, missing.repeat(chains, 1))
    total, kept, moved = torch.zeros_like(data[0]), 0, 0.0
    with pyro.validation_enabled(False):  # the first state was checked; later ones would read all of x again
        for step in range(steps):
            accepted = run.step(always=step < steps // 4)
            if step >= steps // 2:
                total, kept, moved = total + run.at.mean, kept + 1, moved + accepted.float().mean().item()
    if moved / kept < STUCK:
        share = f"{100 * moved / kept:.1g} % of the steps"
        warnings.warn(f"impute: the chains moved in {share}: the guide is poor at these rows", stacklevel=3)
    means = (total / kept).unflatten(0, (chains, -1)).mean(0)
    drawn = run.at.drawn.unflatten(0, (chains, -1))
    return torch.where(missing, means, args[0]), torch.where(missing, drawn, args[0])


class Chains:
    """Chains on the rows of args, (B, …), whose first tensor has missing values."""

    def __init__(self, model: Callable, guide: Callable, args: Rows, missing: Tensor) -> None:
        self.model, self.guide, self.missing = model, guide, missing
        self.x, *self.others = args
        self.depth = plate_depth(model, guide, args)
        self.axes: dict[str, int] = {}
        self.at = self.draw()

    def draw(self, given: dict[str, Tensor] | None = None) -> State:
        """The state at given values of z, or at a draw of the guide, for the present x."""
        args = (self.x, *self.others)
        handler: Any = nullcontext() if given is None else GiveValues(given)
        q, p = run_rows(self.model, self.guide, args, {}, handler, 1, self.depth)
        terms_q, terms_p = site_terms(q, (1,)), site_terms(p, (1,))
        zero = torch.zeros(1, len(self.x), device=self.x.device)
        log_w = sum_per_datum(terms_p, zero)[0] - sum_per_datum(terms_q, zero)[0]
        fn = observed(p, self.x)
        drawn = fn.sample()
        shape, mean = self.x.shape, fn.mean.expand(drawn.shape)
        return State(self._values(q, [term.name for term in terms_q]), log_w, mean.reshape(shape), drawn.reshape(shape))

    def step(self, always: bool) -> Tensor:
        """One step of every chain; returns which proposals were accepted, (B,)."""
        self.x = torch.where(self.missing, self.at.drawn, self.x)
        here, there = self.draw(self.at.values), self.draw()
        chance = torch.rand(len(self.x), device=self.x.device).log()
        accepted = torch.ones_like(chance, dtype=torch.bool) if always else chance < there.log_w - here.log_w
        values = {n: chosen(accepted, there.values[n], here.values[n], axis) for n, axis in self.axes.items()}
        self.at = State(values, *(chosen(accepted, a, b, 0) for a, b in zip(there[1:], here[1:], strict=True)))
        return accepted

    def _values(self, trace: Any, names: list[str]) -> dict[str, Tensor]:
        """The latent values of a trace; notes the axis of the data points of each."""
        for name in names:
            site = trace.nodes[name]
            batch = site["value"].dim() - site["fn"].event_dim
            self.axes[name] = batch + data_plate(name, plates(site), len(self.x))
        return {name: trace.nodes[name]["value"] for name in names}


def chosen(accepted: Tensor, new: Any, old: Any, axis: int) -> Tensor:
    """The rows of `new` that were accepted, and of `old` elsewhere, along an axis."""
    shape = [1] * new.dim()
    shape[axis] = len(accepted)
    return torch.where(accepted.reshape(shape), new, old)


def observed(trace: Any, x: Tensor) -> Any:
    """The law of the observed site that holds x. Raises UsageError where there is none, or its values depend."""
    for name in trace.observation_nodes:
        site = trace.nodes[name]
        if plates(site) and site["value"].numel() == x.numel():
            law = site["fn"]
            if x.dim() > 1 and x.shape[-1] > 1 and not independent(law):
                raise UsageError(
                    f"impute needs values of {name!r} that are independent given the latent variables, as in "
                    f"Normal(…).to_event(1), not {type(law).__name__}"
                )
            return law
    raise UsageError("the model observes no site of the shape of x in a plate: there is nothing to impute")


def independent(law: Any) -> bool:
    """Whether the values of one event are independent."""
    while isinstance(law, Independent | MaskedDistribution):
        law = law.base_dist
    return not law.event_shape
