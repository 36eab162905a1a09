"""A step of `SVI` through a compiled graph: `compiled_step(svi, args, kwargs) -> loss | None`.

Forward and backward pass, the norm of the gradient and the estimators' learned state are one graph; the optimiser's
fused kernel follows. No Pyro handler runs, and one number is read back (the norm, which says that all is finite).
"""

import math
from typing import TYPE_CHECKING

from torch import Tensor

from pathscore.machine import streams
from pathscore.compiling.compiled_graph import CompiledGraph, Losses
from pathscore.svi.joint_optim import JointOptim

if TYPE_CHECKING:
    from pathscore.svi import SVI


def compiled_step(svi: "SVI", args: tuple, kwargs: dict) -> float | Losses | None:
    """One gradient step; the loss, or None, with nothing changed, where the step must run eagerly.

    A step that is not finite runs again eagerly, from the same random stream: that names the site at fault.
    """
    graph = _graph(svi, args, kwargs)
    if graph is None or svi.compiled is None:
        return None
    stream = streams.read(graph.device)
    found = svi.compiled.evaluate(graph, args, kwargs)
    if found is None:
        return None
    losses, norm, gradients = found
    if not math.isfinite(norm) or not all(map(math.isfinite, losses)):
        streams.write(stream, graph.device)
        return None
    svi.gradient_norm = norm * graph.scale
    if isinstance(svi.optim, JointOptim):
        svi.optim.update(graph.trained, gradients, svi.gradient_norm)
    else:
        _foreign_step(svi, graph.trained, gradients)
    svi.steps += 1
    return losses[0] if graph.single else losses


def _foreign_step(svi: "SVI", parameters: list[Tensor], gradients: list[Tensor]) -> None:
    """A step of Pyro's own optimisers, which find gradients in `.grad` and names in the store."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    with svi.scope():
        svi.optim(parameters)
    for parameter in parameters:
        parameter.grad = None


def _graph(svi: "SVI", args: tuple, kwargs: dict) -> CompiledGraph | None:
    compiled = svi.compiled
    assert compiled is not None
    graph = compiled.ready(svi.model, svi.guide, args, kwargs)
    if graph is not None:
        return graph
    scale = 1.0 / len(args[0]) if svi.per_datum else 1.0
    with svi.scope():
        graph = compiled.graph(svi.model, svi.guide, args, kwargs, svi.parameters().values(), scale)
        svi.recorder.forget()
    if graph is None or (isinstance(svi.optim, JointOptim) and not all(map(svi.optim.holds, graph.trained))):
        return None
    return graph
