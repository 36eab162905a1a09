"""Time of the parts of a compiled step: `parts(case, clock) -> {part: milliseconds}`, the minimum of several turns.

"step": the whole step. "graph": the compiled graph (draws, forward, backward, norm). "optimiser": Adam's fused kernel.
"products": the matrix products in the graph. "in a row": one step of `ROW` steps in one graph. The rest of "step" is
Python. Several steps per call could save at most this rest and the difference between "graph" and "in a row".
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.products import products
from benchmarks.unrolled import unrolled
from benchmarks.variants import make_svi
from pathscore.compiling.capture import Capture
from pathscore.compiling.compiled_elbo import CompiledELBO
from pathscore.compiling.inductor import build, compile_graph

TURNS, CALLS, ROW = 7, 300, 4


def parts(case: Case, clock: Callable[[], float] = time.process_time) -> dict[str, float]:
    """Milliseconds of each part."""
    rows: list[Callable] = []

    def both(capture: Capture, inputs: list[Tensor]) -> Callable:
        run = build(capture, inputs)  # rewrites the graph, which is then repeated
        rows.append(compile_graph(unrolled(capture, ROW), [*capture.tensors, *inputs]))
        return run

    x, svi = case.data(), make_svi(case, lambda elbo: CompiledELBO(elbo, builder=both))
    for _ in range(20):
        svi.step(x)
    assert svi.compiled is not None
    graph = svi.compiled.ready(svi.model, svi.guide, (x,), {})
    assert graph is not None
    _, _, gradients = graph((x,), {})
    multiply = products(case)
    step = least(lambda: svi.step(x), clock)
    with torch.no_grad():
        return {
            "step": step,
            "graph": least(lambda: graph.run(*graph.capture.tensors, x), clock),
            "in a row": least(lambda: rows[0](*graph.capture.tensors, x), clock) / ROW,
            "optimiser": least(lambda: svi.optim.update(graph.trained, gradients, 1.0), clock),
            "products": least(lambda: multiply(x), clock),
        }


def least(call: Callable, clock: Callable[[], float]) -> float:
    """Milliseconds per call: the minimum of `TURNS` averages over `CALLS` calls."""
    found = []
    for _ in range(TURNS):
        start = clock()
        for _ in range(CALLS):
            call()
        found.append((clock() - start) / CALLS)
    return 1e3 * min(found)
