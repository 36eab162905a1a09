"""Where a compiled step's time goes: `parts(case, clock) -> {part: milliseconds}`, each the least of several turns.

"step" is the whole; "graph" the compiled graph alone (draws, forward, backward, norm); "optimiser" Adam's fused kernel;
"products" the matrix products that the graph contains. What is left of the step is Python: the most that taking several
steps in one call could save.
"""

import time
from collections.abc import Callable

import torch

from benchmarks.cases import Case
from benchmarks.products import products
from benchmarks.variants import make_svi
from pathscore.elbos.compiled import CompiledELBO

TURNS, CALLS = 7, 300


def parts(case: Case, clock: Callable[[], float] = time.process_time) -> dict[str, float]:
    """Milliseconds of each part."""
    x, svi = case.data(), make_svi(case, CompiledELBO)
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
            "optimiser": least(lambda: svi.optim.update(graph.trained, gradients, 1.0), clock),
            "products": least(lambda: multiply(x), clock),
        }


def least(call: Callable, clock: Callable[[], float]) -> float:
    """Milliseconds of one call, the least of `TURNS` averages over `CALLS` calls."""
    found = []
    for _ in range(TURNS):
        start = clock()
        for _ in range(CALLS):
            call()
        found.append((clock() - start) / CALLS)
    return 1e3 * min(found)
