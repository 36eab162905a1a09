"""A whole step as one launch of a GPU: `whole_step(graph, optim) -> WholeStep | None`.

Losses, gradients and their norm come from the compiled graph. Clipping and the optimiser's kernel follow in the same
recording, so nothing waits for the processor but one reading of the numbers. Whether a step is finite is decided where
it runs: parameters and the optimiser's state do not move in one that is not.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from pathscore.compiling.compiled_graph import CompiledGraph, tensors_of
from pathscore.compiling.cuda_graph import Replay
from pathscore.machine.fused_on_device import DeviceKernel
from pathscore.svi.joint_optim import JointOptim


class WholeStep:
    """A graph and the optimiser's kernel as one recording: `step(args, kwargs) -> numbers`.

    Raises: RuntimeError where something in it cannot be recorded.
    """

    def __init__(self, graph: CompiledGraph, optim: JointOptim, kernel: DeviceKernel) -> None:
        self.graph, self.optim, self.kernel = graph, optim, kernel
        self.replay: Replay = graph.run.followed_by(self.update, kernel.moved)

    def __call__(self, args: tuple, kwargs: dict) -> list[float]:
        """Losses, and the norm of the gradient before its scale; nothing has moved where one of them is not finite."""
        self.optim.set_rates()
        self.kernel.fill_rates()
        numbers = self.replay.launch(tensors_of(args, kwargs))[0].tolist()
        if all(map(math.isfinite, numbers)):
            self.optim.steps += 1
            self.graph.uses += 1
        return numbers

    def rewind(self) -> None:
        """Put the random stream back to where the latest step began."""
        self.replay.rewind()

    def update(self, results: Any) -> tuple[Tensor]:
        """What follows the graph: `update((numbers, *gradients))` moves the parameters, and returns the numbers."""
        numbers, *gradients = results
        bad = (~torch.isfinite(numbers).all()).float()
        self.kernel(gradients, self._divisor(numbers[-1]), bad)
        return (numbers,)

    def _divisor(self, norm: Tensor) -> Tensor | None:
        """What gradients are divided by, so that their norm is at most the optimiser's bound."""
        bound = self.optim.clip_norm
        return None if bound is None else ((norm * self.graph.scale + 1e-6) / bound).clamp(min=1.0).float()


def whole_step(graph: CompiledGraph, optim: Any) -> WholeStep | None:
    """The step of this graph and this optimiser as one launch; None where it cannot be, which is found out once."""
    made = graph.whole
    if isinstance(made, WholeStep) and made.optim is optim and made.kernel.is_current():
        return made
    if made is False or not isinstance(graph.run, Replay) or graph.capture.assumes or not isinstance(optim, JointOptim):
        return None
    kernel = optim.device_kernel(graph.trained)
    graph.whole = _recorded(graph, optim, kernel) if kernel is not None else False
    return graph.whole or None


def _recorded(graph: CompiledGraph, optim: JointOptim, kernel: DeviceKernel) -> WholeStep | bool:
    try:
        return WholeStep(graph, optim, kernel)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:160]
        warnings.warn(f"--compile: the optimiser's step is launched by itself: {reason}", UserWarning, stacklevel=4)
        return False
