"""`CompiledELBO(elbo)`: the same objective as one compiled graph of tensor operations, for any model and guide.

    SVI(model, guide, optim, CompiledELBO(SiteELBO("disarm"))).step(x)

The first evaluation of a program runs eagerly and makes its parameters; the second with arguments of these shapes
builds a graph, and every later one runs it. Other shapes (the smaller last batch of an epoch) run eagerly, which is the
same estimate from the same random stream: no batch is padded, repeated or left out, and nothing is built by surprise. A
graph is compared with the eager objective before its first use and again before its 2nd, 4th, 8th … use, and is dropped
when they differ. A program whose sites depend on the call (labels given or not, sequences of other lengths) gets a
graph for each of the first structures that it shows, each after an eager evaluation of its own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pyro
import torch
from pyro.infer.elbo import ELBO
from torch import Tensor

from pathscore.compiling.capture import modules_of
from pathscore.compiling.compiled_graph import CompiledGraph, Losses, signature
from pathscore.compiling.inductor import build
from pathscore.compiling.reading import Refusal
from pathscore.elbos.structures import kind_of_call, structure_of
from pathscore.programs.recorder import Recorder
from pathscore.programs.traces import identity

Evaluation = tuple[Losses, float, list[Tensor]]

WHEN = ("auto", "on", "off")

AUTO_STEPS = {"cpu": 10_000, "cuda": 5_000}
"""Steps of a run from which on building pays: it takes up to 20 s the first time. A step saves 1 to 4 ms on a CPU, and
4 ms on a GPU, where an eager step is made of launches."""


def compiled(elbo: ELBO, when: str, steps: int, device: torch.device) -> ELBO:
    """The objective for a run of so many steps, compiled or not: `when` is one of `WHEN`.

    "auto" depends on nothing but the plan of the run, so that the same command gives the same numbers.
    """
    wanted = when == "on" or (when == "auto" and steps >= AUTO_STEPS.get(device.type, math.inf))
    return CompiledELBO(elbo) if wanted else elbo


class EagerWarning(UserWarning):
    """A program runs eagerly though compilation was asked for; the message says why."""


class CompiledELBO(ELBO):
    """An objective whose loss and gradient are one compiled graph.

    elbo: any Pyro objective. graphs: how many shapes of arguments get a graph, the first ones; others run eagerly.
    structures: how many structures of a call have graphs of their own.
    builder: what makes a graph run, `inductor.build` by default.

    Learned state of estimators (baselines, η, temperature) is updated by the graph, in place. Where the program cannot
    be one graph, or there is no C++ compiler, an `EagerWarning` says why and the objective runs as it is.

    References: PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode Transformation and Graph Compilation.
    Ansel et al., 2024 (TorchInductor).
    """

    def __repr__(self) -> str:
        return f"CompiledELBO({self.elbo!r}, {len(self.built)} graphs)"

    def __init__(self, elbo: ELBO, *, graphs: int = 1, structures: int = 4, builder: Callable = build) -> None:
        super().__init__(num_particles=elbo.num_particles, max_plate_nesting=elbo.max_plate_nesting)
        self.elbo: Any = elbo
        self.graphs, self.structures, self.builder = graphs, structures, builder
        self.shapes: dict[Any, Any] = {}  # those that get a graph → their kind of call
        self.built: dict[Any, CompiledGraph] = {}
        self.refused: dict[Any, str] = {}
        self.expected: set[str] = set()  # calls that have graphs in the run that this one continues
        self._recorder = Recorder()
        self._met: dict[Any, tuple[Callable, Callable]] = {}  # kept, so that identities stay theirs

    @property
    def estimators(self) -> Any:
        """The estimators of the objective, where it has any."""
        return getattr(self.elbo, "estimators", None)

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Any:
        """The objective's loss, eagerly."""
        return self.elbo.loss(model, guide, *args, **kwargs)

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Any:
        """The objective's loss as a number (or numbers); adds its gradient to the parameters' `.grad`."""
        if identity(model) + identity(guide) not in self._met:
            self.meet(model, guide, args, kwargs)
            with self._recorder:
                loss = self.elbo.loss_and_grads(model, guide, *args, **kwargs)
            self._recorder.forget()
            return loss
        own = self.estimators.parameters() if self.estimators is not None else ()
        parameters = [*self._recorder.params.values(), *own]
        graph = self.graph(model, guide, args, kwargs, parameters, unnamed=True)
        found = self.evaluate(graph, args, kwargs) if graph is not None else None
        if graph is None or found is None:
            return self.elbo.loss_and_grads(model, guide, *args, **kwargs)
        losses, _, gradients = found
        for parameter, gradient in zip(graph.trained, gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self._announce()
        return losses[0] if graph.single else losses

    def meet(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> None:
        """Note the shapes of an evaluation that runs eagerly: a graph for them is built when they come again."""
        self.shapes.setdefault(self._key(model, guide, args, kwargs), kind_of_call(args, kwargs))

    def met(self) -> list[str]:
        """The calls that get graphs, in words: a run that continues builds them without an eager evaluation first."""
        return sorted(self.expected | {_in_words(key) for key in self.shapes if key not in self.refused})

    def awaits(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> bool:
        """Whether such a call had a graph in the run that this one continues, and has not come since."""
        if not self.expected:
            return False
        key = self._key(model, guide, args, kwargs)
        return _in_words(key) in self.expected and key not in self.shapes and key not in self.refused

    def ready(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> CompiledGraph | None:
        """The graph for these arguments, where there is one that need not be checked now."""
        for graph in self.built.values():
            if graph.fits(model, guide, args, kwargs):
                return None if graph.due else graph
        return None

    def graph(
        self,
        model: Callable,
        guide: Callable,
        args: tuple,
        kwargs: dict,
        parameters: Iterable[Tensor],
        scale: float = 1.0,
        unnamed: bool = False,
    ) -> CompiledGraph | None:
        """The graph for these arguments, built and checked if it is time; None where the objective runs eagerly.

        parameters: the leaves that a step trains; the program must have run once. scale: factor of the gradient.
        unnamed: give other leaves a gradient too.
        """
        key = self._key(model, guide, args, kwargs)
        if key in self.refused or not self._wanted(key, model, guide, args, kwargs):
            return None
        try:
            if key not in self.built:
                self.built[key] = CompiledGraph(
                    self.elbo, model, guide, args, kwargs, list(parameters), scale, self.builder, unnamed
                )
            graph = self.built[key]
            if graph.due:
                graph.check(args, kwargs)
            return graph
        except Refusal as reason:
            self._drop(key, reason)
            return None

    def evaluate(self, graph: CompiledGraph, args: tuple, kwargs: dict) -> Evaluation | None:
        """`graph(args, kwargs)`; None, with nothing changed, where a branch goes another way: the graph is dropped."""
        try:
            return graph(args, kwargs)
        except Refusal as reason:
            self._drop(self._key(graph.model, graph.guide, args, kwargs), reason)
            return None

    def _announce(self) -> None:
        """Name the parameters as the programs would have: `pyro.infer.SVI` moves those that it hears of."""
        store = pyro.get_param_store()
        for name in self._recorder.params:
            if name in store:
                pyro.param(name)

    def _wanted(self, key: Any, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> bool:
        """Whether arguments of these shapes get a graph now; a structure that is new runs eagerly first."""
        if key in self.shapes:
            return True
        if hasattr(self.elbo, "prepare"):
            self.elbo.prepare(model, guide, *args, **kwargs)
        kind = kind_of_call(args, kwargs)
        found = structure_of(self.elbo, model, guide, kind)
        met = [structure_of(self.elbo, model, guide, known) for known in self.shapes.values()]
        if met.count(found) < self.graphs and (found in met or len(set(met)) < self.structures):
            self.shapes[key] = kind
        return key in self.shapes and found in met

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> Any:
        return self.elbo._get_trace(model, guide, args, kwargs)

    def _key(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> Any:
        pair = identity(model) + identity(guide)
        self._met.setdefault(pair, (model, guide))
        try:
            given = signature(args, kwargs)
        except Refusal as reason:
            if str(reason) not in self.refused.values():
                self._drop((*pair, str(reason), ()), reason)
            return *pair, str(reason), ()
        return *pair, given, tuple(module.training for module in modules_of(model, guide, self.elbo))

    def _drop(self, key: Any, reason: Refusal) -> None:
        self.built.pop(key, None)
        self.refused[key] = str(reason)
        warnings.warn(f"--compile: the program runs eagerly: {reason}", EagerWarning, stacklevel=4)


def _in_words(key: Any) -> str:
    """The shapes, other arguments and modes of a call, without the programs."""
    return repr(key[4:])
