"""Time of one training step per case and variant: `measure(cases, …) -> list of Timing`.

All variants of a case run in one process and take turns, one slice of time each; NumPyro's process takes turns too. A
ratio is the median over rounds of (variant / handwritten) within a round, so that a slow change of the machine's speed
affects both in the same way.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from benchmarks.cases import Case
from benchmarks.handwritten import Step
from benchmarks.numpyro_process import NumPyro
from benchmarks.products import products
from benchmarks.variants import EXTRA, VARIANTS

Slice = Callable[[float], float]
"""Runs steps for about the given number of seconds; returns the seconds per step."""

WARM_UP = 5
"""Steps before the measurement: the first ones make parameters, optimiser and graph."""


@dataclass(frozen=True)
class Timing:
    """One row of the result.

    ratio_to_handwritten, ratio_to_numpyro, ratio_to_graph, ratio_to_pyro: medians of per-round ratios; None where the
    other was not measured. The graph is the whole step as one CUDA graph, written by hand.
    share_of_products: median of (time of the step's matrix products alone / time of the step).
    """

    case: str
    variant: str
    threads: int
    milliseconds: float
    ratio_to_handwritten: float
    ratio_to_numpyro: float | None
    share_of_products: float
    ratio_to_graph: float | None = None
    ratio_to_pyro: float | None = None


@dataclass(frozen=True)
class Plan:
    """How long to measure, the clock, the interpreter that has NumPyro (None to leave it out), and the variants."""

    rounds: int = 15
    seconds: float = 0.5
    cpu_time: bool = False
    numpyro: str | None = None
    variants: tuple[str, ...] = tuple(VARIANTS)
    device: str = "cpu"

    @property
    def clock(self) -> Callable[[], float]:
        """Processor time of the process, or wall-clock time."""
        return time.process_time if self.cpu_time else time.perf_counter


def measure(cases: Iterable[Case], threads: int, plan: Plan) -> list[Timing]:
    """Time every variant of the cases: `rounds` slices of `seconds` each."""
    torch.set_num_threads(threads)
    return [timing for case in cases for timing in measure_case(case, threads, plan)]


def measure_case(case: Case, threads: int, plan: Plan) -> list[Timing]:
    """The timings of one case."""
    with slices(case, threads, plan) as found:
        times: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(plan.rounds):
            for name, run in found.items():
                times[name].append(run(plan.seconds))
    return [_timing(case, name, threads, times) for name in times if name != "products"]


@contextmanager
def slices(case: Case, threads: int, plan: Plan) -> Iterator[dict[str, Slice]]:
    """Every variant after its warm-up, and "products", the matrix products alone."""
    torch.manual_seed(0)
    device = torch.device(plan.device)
    makers = {name: (VARIANTS | EXTRA)[name] for name in ("handwritten", *plan.variants)} | {"products": products}
    with device:
        x, steps = case.data(), {name: make(case) for name, make in makers.items()}
    for step in steps.values():
        for _ in range(WARM_UP):
            step(x)
    with ExitStack() as stack:
        found = {name: slice_of(step, x, plan.clock) for name, step in steps.items()}
        if plan.numpyro:
            try:
                child = NumPyro(case, threads, plan.numpyro, plan.cpu_time, device.type)
                found["numpyro"] = stack.enter_context(child).slice
            except RuntimeError as error:  # its objective for discrete latents fails under some versions of JAX
                print(f"{case.name}: without NumPyro: {error}")
        yield found


def slice_of(step: Step, x: torch.Tensor, clock: Callable[[], float]) -> Slice:
    """Slices of time spent on a step."""

    def run(seconds: float) -> float:
        count, start = 0, clock()
        while (elapsed := clock() - start) < seconds or count == 0:
            step(x)
            count += 1
        if x.is_cuda:  # what only launches is not done yet
            torch.cuda.synchronize()
            elapsed = clock() - start
        return elapsed / count

    return run


def _timing(case: Case, name: str, threads: int, times: dict[str, list[float]]) -> Timing:
    own = times[name]

    def ratio(other: str) -> float:
        return statistics.median(a / b for a, b in zip(own, times[other], strict=True))

    return Timing(
        case.name,
        name,
        threads,
        1e3 * statistics.median(own),
        ratio("handwritten"),
        ratio("numpyro") if "numpyro" in times else None,
        1 / ratio("products"),
        ratio("handwritten-graph") if "handwritten-graph" in times else None,
        ratio("pyro-svi") if "pyro-svi" in times else None,
    )
