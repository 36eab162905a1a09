"""A step of `SVI` through a compiled graph: `compiled_step(parameters, compiled, optim, …) -> (loss, norm) | None`.

Forward and backward pass, the norm of the gradient and the estimators' learned state are one graph; the optimiser's
fused kernel follows, on a GPU in the same recording (`whole_step`). No Pyro handler runs, and the numbers are read back
once (the norm says that all is finite).
"""

import math
from typing import Any

from pyro.optim import PyroOptim
from torch import Tensor

from pathscore.compiling.compiled_elbo import CompiledELBO
from pathscore.compiling.compiled_graph import CompiledGraph, Losses
from pathscore.machine import streams
from pathscore.svi.joint_optim import JointOptim
from pathscore.svi.parameters import Parameters
from pathscore.svi.whole_step import WholeStep, whole_step


def compiled_step(
    parameters: Parameters, compiled: CompiledELBO, optim: PyroOptim, args: tuple, kwargs: dict, scale: float
) -> tuple[float | Losses, float] | None:
    """One gradient step: the objective's loss, and the norm of `scale` × its gradient.

    Returns None, with nothing changed, where the step must run eagerly. A step that is not finite runs again eagerly,
    from the same random stream: that names the site at fault.
    """
    graph = _graph(parameters, compiled, optim, args, kwargs, scale)
    if graph is None:
        return None
    step = whole_step(graph, optim)
    if step is not None:
        return _replayed(step, args, kwargs)
    stream = streams.read(graph.device)
    found = compiled.evaluate(graph, args, kwargs)
    if found is None:
        return None
    losses, norm, gradients = found
    if not math.isfinite(norm) or not all(map(math.isfinite, losses)):
        streams.write(stream, graph.device)
        return None
    norm *= graph.scale
    if isinstance(optim, JointOptim):
        optim.update(graph.trained, gradients, norm)
    else:
        _foreign_step(parameters, optim, graph.trained, gradients)
    return losses[0] if graph.single else losses, norm


def _replayed(step: WholeStep, args: tuple, kwargs: dict) -> tuple[float | Losses, float] | None:
    *losses, norm = step(args, kwargs)
    if not math.isfinite(norm) or not all(map(math.isfinite, losses)):
        step.rewind()
        return None
    return losses[0] if step.graph.single else tuple(losses), norm * step.graph.scale


def _foreign_step(parameters: Parameters, optim: Any, trained: list[Tensor], gradients: list[Tensor]) -> None:
    """A step of Pyro's own optimisers, which find gradients in `.grad` and names in the store."""
    for parameter, gradient in zip(trained, gradients, strict=True):
        parameter.grad = gradient
    with parameters.scope():
        optim(trained)
    for parameter in trained:
        parameter.grad = None


def _graph(
    parameters: Parameters, compiled: CompiledELBO, optim: PyroOptim, args: tuple, kwargs: dict, scale: float
) -> CompiledGraph | None:
    model, guide = parameters.model, parameters.guide
    graph = compiled.ready(model, guide, args, kwargs)
    if graph is not None:
        return graph
    with parameters.scope():
        graph = compiled.graph(model, guide, args, kwargs, parameters.named().values(), scale)
        parameters.recorder.forget()
    if graph is None or (isinstance(optim, JointOptim) and not all(map(optim.holds, graph.trained))):
        return None
    return graph
