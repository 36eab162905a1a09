"""Replicates: N independent gradient estimates from one backward pass, for any program pair, unedited.

`Replicates(model, guide, args).draw(elbo, N) -> (N, P)`: guide and model run inside a plate of N replicates that lies
outside all of their own plates, as vectorised particles do, so every latent site is drawn N times independently; a
leaf for each replicate (leaves.py) collects its gradient.  Minibatch, subsample and parameters are held fixed: what
varies is the draw of the latent sites alone.  P counts the parameters of all latent sites, in the guide's order.

`Weights(model, guide, args).draw(elbo, N)` has the same form for the gradient by the guide's weights, which
replicates share: N passes, one after the other. So are the replicates of a program that does not broadcast
(`PassesWithLeaves`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from pathscore.elbos.plan import dry_run, latent_sites
from pathscore.errors import UsageError
from pathscore.gradients.leaves import Key, Leaves
from pathscore.programs.broadcasting import obstacle
from pathscore.programs.untouched import rehearsal
from pathscore.svi.complaints import plainly

PLATE = "_pathscore_replicates"
BUDGET = 1_500_000
"""Values of sample sites that one pass may hold; more replicates are drawn in several passes."""


class Pair:
    """A model and a guide at fixed arguments, with their plates' subsamples held as first drawn.

    Attributes:
        depth: plates of the program.
        values: values of all sample sites, latent and observed, in one run.
        plain: model and guide without replicates, for exact references.
        latents, priors: latent sites of guide and model from a dry run, by name.
        obstacle: why the programs cannot be run for several rows in one pass; None where they can.
    """

    def __init__(self, model: Callable, guide: Callable, args: tuple, kwargs: dict | None = None) -> None:
        self.args, self.kwargs = args, kwargs or {}
        with plainly(*args):
            model_trace, guide_trace, self.depth = dry_run(model, guide, args, self.kwargs, float("inf"))
        self.latents, self.priors = latent_sites(guide_trace), latent_sites(model_trace)
        if not self.latents:
            raise UsageError("the guide draws no latent site: there is no sampling step to measure")
        held = Trace()
        for trace in (guide_trace, model_trace):
            for name, site in _of_type("sample", trace):
                if site_is_subsample(site) and name not in held:
                    held.add_node(name, **site)
        self.values = sum(site["value"].numel() for _, site in _of_type("sample", model_trace))
        self.model: Callable = poutine.replay(model, trace=held)
        self.guide: Callable = poutine.replay(guide, trace=held)
        self.plain = self.model, self.guide
        self.obstacle = obstacle(self.model, self.guide, args, self.kwargs, self.depth)

    @property
    def nesting(self) -> int:
        """Plates that an objective must allow for."""
        return self.depth

    def most(self, rows: int) -> int:
        """Replicates that one pass of `rows` model evaluations may hold."""
        raise NotImplementedError

    def draw(self, elbo: Any, count: int) -> tuple[Tensor, float]:
        """`count` gradients of the ELBO (count, P), and the mean ELBO in nats."""
        raise NotImplementedError

    def groups(self) -> dict[Key, int]:
        """(site, parameter) → number of its coordinates, in the order of the columns of `draw`."""
        raise NotImplementedError

    def leaf_tensors(self) -> list[Tensor]:
        """What the gradient is by, in the order of `groups`."""
        raise NotImplementedError

    @contextmanager
    def alone(self) -> Iterator[tuple[Callable, Callable]]:
        """Model and guide without replicates, inside."""
        yield self.plain

    def exactly(self, elbo: Callable[..., Tensor]) -> Tensor:
        """The gradient (P,) of `elbo(model, guide, *args)`, an exact bound."""
        with self.alone() as programs:
            bound = elbo(*programs, *self.args, **self.kwargs)
            return torch.cat([g.flatten() for g in _gradients(bound.sum(), self.leaf_tensors())])

    def teach(self, elbo: Any, learned: list[nn.Parameter], count: int) -> None:
        """Set the gradients of the objective's own parameters, on up to `count` replicates."""
        _, surrogate = elbo.loss_and_surrogate(self.model, self.guide, self.args, self.kwargs)
        for parameter, gradient in zip(learned, _gradients(surrogate, learned), strict=True):
            parameter.grad = gradient


class Passes(Pair):
    """Replicates as passes, one after another: for what they share, and for programs that do not broadcast."""

    def most(self, rows: int) -> int:
        return max(1, BUDGET // max(1, sum(self.groups().values())))

    def draw(self, elbo: Any, count: int) -> tuple[Tensor, float]:
        rows, total = [], 0.0
        for _ in range(count):
            loss, surrogate = elbo.loss_and_surrogate(self.model, self.guide, self.args, self.kwargs)
            gradients = _gradients(surrogate, self.leaf_tensors())
            rows.append(-torch.cat([g.flatten() for g in gradients]))
            total -= float(loss)
        return torch.stack(rows), total / count


class PassesWithLeaves(Passes):
    """The pair with leaves and without a plate of replicates; `leaves.tensors` serve every pass."""

    def __init__(self, model: Callable, guide: Callable, args: tuple, kwargs: dict | None = None) -> None:
        super().__init__(model, guide, args, kwargs)
        self.leaves = Leaves(self.depth)
        self.plain = self.model, self.guide = self.model, self.leaves.attached(self.guide)

    def groups(self) -> dict[Key, int]:
        return {key: leaf.numel() for key, leaf in self.leaves.tensors.items()}

    def leaf_tensors(self) -> list[Tensor]:
        return list(self.leaves.tensors.values())


class Replicates(Pair):
    """The pair with a plate of replicates and leaves; see the module. `leaves.tensors` are those of the last run."""

    def __init__(self, model: Callable, guide: Callable, args: tuple, kwargs: dict | None = None) -> None:
        super().__init__(model, guide, args, kwargs)
        self.leaves = Leaves(self.depth)
        self.plain = self.model, self.leaves.attached(self.guide)
        self.model, self.guide = (self._replicated(program) for program in self.plain)
        self.leaves.count = 2

    @property
    def nesting(self) -> int:
        return self.depth + 1

    def _replicated(self, program: Callable) -> Callable:
        def replicated(*args: Any, **kwargs: Any) -> Any:
            with pyro.plate(PLATE, self.leaves.count, dim=-self.depth - 1):
                return program(*args, **kwargs)

        return replicated

    def most(self, rows: int) -> int:
        return max(2, BUDGET // (rows * max(1, self.values)))

    def draw(self, elbo: Any, count: int) -> tuple[Tensor, float]:
        self.leaves.count = count
        loss, surrogate = elbo.loss_and_surrogate(self.model, self.guide, self.args, self.kwargs)
        gradients = _gradients(surrogate, self.leaf_tensors())
        return -torch.cat([g.reshape(count, -1) for g in gradients], 1), -float(loss) / count

    def groups(self) -> dict[Key, int]:
        return {key: leaf[0].numel() for key, leaf in self.leaves.tensors.items()}

    def teach(self, elbo: Any, learned: list[nn.Parameter], count: int) -> None:
        self.leaves.count = count
        super().teach(elbo, learned, count)

    def leaf_tensors(self) -> list[Tensor]:
        return list(self.leaves.tensors.values())

    @contextmanager
    def alone(self) -> Iterator[tuple[Callable, Callable]]:
        self.leaves.count, count = None, self.leaves.count
        try:
            yield self.plain
        finally:
            self.leaves.count = count


class Weights(Passes):
    """The pair and the parameters that its guide registers; replicates are passes, one after another."""

    def __init__(self, model: Callable, guide: Callable, args: tuple, kwargs: dict | None = None) -> None:
        super().__init__(model, guide, args, kwargs)
        with poutine.trace(param_only=True) as traced, rehearsal(guide), torch.no_grad():
            self.guide(*args, **self.kwargs)
        self.parameters = {name: site["value"].unconstrained() for name, site in _of_type("param", traced.trace)}
        if not self.parameters:
            raise UsageError("the guide registers no parameters: call pyro.module or pyro.param inside it")

    def leaf_tensors(self) -> list[Tensor]:
        return list(self.parameters.values())

    def groups(self) -> dict[Key, int]:
        return {("weights", name.replace("$$$", ".")): p.numel() for name, p in self.parameters.items()}


def by_sites(model: Callable, guide: Callable, args: tuple, kwargs: dict | None = None) -> Pair:
    """The pair with leaves at its latent sites, its replicates in one pass where the programs broadcast."""
    pair = Replicates(model, guide, args, kwargs)
    return _started(pair, model, guide) if pair.obstacle is None else one_by_one(model, guide, args, kwargs)


def one_by_one(model: Callable, guide: Callable, args: tuple, kwargs: dict | None = None) -> Pair:
    """The pair with leaves at its latent sites, its replicates as passes."""
    return _started(PassesWithLeaves(model, guide, args, kwargs), model, guide)


def _started(pair: Replicates | PassesWithLeaves, model: Callable, guide: Callable) -> Pair:
    """The pair with its leaves made, by one run."""
    with pair.alone() as (_, with_leaves), rehearsal(model, guide), torch.no_grad():
        with_leaves(*pair.args, **pair.kwargs)
    if not pair.leaves.tensors:
        raise UsageError(
            f"no distribution of {', '.join(map(repr, pair.latents))} keeps parameters to differentiate by: measure "
            "the gradient of the weights instead (of='weights')"
        )
    return pair


def _of_type(kind: str, trace: Trace) -> list[tuple[str, Any]]:
    """The sites of a trace that are of one type, by name."""
    return [(name, site) for name, site in trace.nodes.items() if site.get("type") == kind]


def _gradients(value: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Gradients by the leaves; zeros where the value does not depend on one."""
    if not leaves or not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, gradients, strict=True)]
