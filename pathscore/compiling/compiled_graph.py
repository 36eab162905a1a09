"""One objective of one program for one set of shapes, compiled: `graph(args, kwargs) -> (losses, norm, gradients)`.

`signature(args, kwargs)` is what a graph is for: shapes and types of tensors, and other arguments as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.infer import TraceGraph_ELBO
from torch import Tensor
from torch.utils._pytree import tree_flatten

from pathscore.compiling.agreement import disagreement
from pathscore.compiling.capture import Capture, capture, device_of, modules_of
from pathscore.compiling.inductor import build
from pathscore.compiling.reading import Refusal
from pathscore.elbos.site import SiteELBO
from pathscore.machine import streams
from pathscore.machine.precision import matmul_precision
from pathscore.programs.untouched import putting_back

Losses = tuple[float, ...]


class CompiledGraph:
    """The graph of an objective, with what it needs to be run and checked.

    parameters, scale, unnamed: as `capture` takes them. builder: makes a callable of a `Capture` and example inputs.
    trained: the parameters that gradients belong to. single: whether the objective reports one number.

    Raises: Refusal where the program cannot become one graph, or the graph cannot be built.
    """

    def __init__(
        self,
        elbo: Any,
        model: Callable,
        guide: Callable,
        args: tuple,
        kwargs: dict,
        parameters: list[Tensor],
        scale: float = 1.0,
        builder: Callable[[Capture, list[Tensor]], Callable] = build,
        unnamed: bool = False,
    ) -> None:
        self.elbo, self.model, self.guide = elbo, model, guide
        self.scale, self.uses = scale, 0
        self.signature = signature(args, kwargs)
        self.modules = modules_of(model, guide, elbo)
        self.modes = [module.training for module in self.modules]
        followed = followable(elbo)
        if hasattr(followed, "prepare"):  # what looks at values, a graph cannot hold
            followed.prepare(model, guide, *args, **kwargs)
        self.capture: Capture = capture(followed, model, guide, args, kwargs, parameters, scale, unnamed)
        self.run = builder(self.capture, tensors_of(args, kwargs))
        self.trained, self.single = self.capture.trained, self.capture.single
        self.parameters = list({id(p): p for p in (*parameters, *self.trained)}.values())
        self.device = device_of(self.capture.tensors)
        self.whole: Any = None  # the step that an optimiser makes of it, where a GPU replays that too

    def fits(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> bool:
        """Whether this graph is for these programs, shapes, other arguments and train() or eval()."""
        return (
            model == self.model
            and guide == self.guide
            and signature(args, kwargs) == self.signature
            and [module.training for module in self.modules] == self.modes
        )

    @property
    def due(self) -> bool:
        """Whether the graph must be checked: before its first use, and before the 2nd, 4th, 8th …"""
        return self.uses & (self.uses + 1) == 0

    def __call__(self, args: tuple, kwargs: dict) -> tuple[Losses, float, list[Tensor]]:
        """Losses, the Euclidean norm of the gradient before `scale`, and the gradients after it.

        Raises: Refusal, with nothing changed, where a branch of the program goes another way than the graph.
        """
        assumes = self.capture.assumes
        before = [t.clone() for t in self.capture.written] if assumes else []
        stream = streams.read(self.device) if assumes else {}
        with torch.no_grad():
            out = self.run(*self.capture.tensors, *tensors_of(args, kwargs))
            if assumes and not out[1]:
                for tensor, value in zip(self.capture.written, before, strict=True):
                    tensor.copy_(value)
                streams.write(stream, self.device)
                raise Refusal(f"its course depends on the values of tensors, and changed at use {self.uses + 1}")
        self.uses += 1
        *losses, norm = out[0].tolist()
        return tuple(losses), norm, list(out[1 + assumes :])

    def check(self, args: tuple, kwargs: dict) -> None:
        """Compare the graph with the eager objective; parameters, state and random stream stay as they are.

        Both multiply in full float32: rounded to bfloat16, products differ with how they are formed.

        Raises: Refusal when they differ.
        """
        uses = self.uses

        def compiled() -> tuple[Losses, list[Tensor]]:
            losses, _, gradients = self(args, kwargs)
            return losses, gradients

        try:
            with matmul_precision("highest"), putting_back(self.model, self.guide) as writes:

                def eager() -> tuple[Losses, list[Tensor]]:
                    with writes:
                        return self._eager(args, kwargs)

                found = disagreement(compiled, eager, self.capture.written, self.device)
                if found is None and writes.changed():
                    found = "the program changes a tensor in place that the graph leaves as it is"
        finally:
            self.uses = uses
        if found is not None:
            raise Refusal(f"its graph and the program disagree at use {uses + 1}: {found}")

    def _eager(self, args: tuple, kwargs: dict) -> tuple[Losses, list[Tensor]]:
        kept = [p.grad for p in self.parameters]
        try:
            for p in self.parameters:
                p.grad = None
            with pyro.validation_enabled(False):  # what is wrong with a step is said by the step itself
                loss = self.elbo.loss_and_grads(self.model, self.guide, *args, **kwargs)
            reached = {id(p): p.grad * self.scale for p in self.parameters if p.grad is not None}
        finally:
            for p, gradient in zip(self.parameters, kept, strict=True):
                p.grad = gradient
        if reached.keys() != {id(p) for p in self.trained}:
            raise Refusal("the parameters that it trains change from step to step")
        losses = loss if isinstance(loss, tuple) else (loss,)
        return tuple(float(part) for part in losses), [reached[id(p)] for p in self.trained]


def followable(elbo: Any) -> Any:
    """The objective that is followed to a graph: itself, or one that draws and computes the same.

    Pyro's TraceGraph_ELBO marks tensors with their origin in a way that cannot be followed; `SiteELBO` finds it once.
    """
    if isinstance(elbo, TraceGraph_ELBO):
        return SiteELBO(num_particles=elbo.num_particles, max_plate_nesting=elbo.max_plate_nesting, credit="graph")
    return elbo


def signature(args: tuple, kwargs: dict) -> Any:
    """What a graph is for; hashable. Raises: Refusal for an argument that is neither a tensor nor hashable."""
    plain = not kwargs and all(isinstance(x, Tensor) for x in args)
    leaves, layout = (args, None) if plain else tree_flatten((args, kwargs))
    found = layout, tuple([(x.shape, x.dtype, x.device) if isinstance(x, Tensor) else x for x in leaves])
    if not plain:
        try:
            hash(found[1])
        except TypeError:
            raise Refusal("it takes an argument that is neither a tensor nor hashable") from None
    return found


def tensors_of(args: tuple, kwargs: dict) -> list[Tensor]:
    """The tensors among the arguments, in order."""
    leaves = args if not kwargs else tree_flatten((args, kwargs))[0]
    if any(isinstance(leaf, list | tuple | dict) for leaf in leaves):
        leaves = tree_flatten((args, kwargs))[0]
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
