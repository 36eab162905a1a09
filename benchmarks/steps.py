"""Time of one training step per case and variant: `measure(names, rounds, seconds) -> list of Timing`.

All variants of a case live in one process and take turns, a slice of time each; a ratio is the median over rounds of
(variant / handwritten) within the round, so that a machine whose speed drifts disturbs both alike.
"""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyro
import torch
from pyro.infer import Trace_ELBO

from benchmarks.cases import CASES, Case
from benchmarks.handwritten import STEPS, Step
from guides import AmortizedGuide
from models import VAE
from pathscore.elbos import make_elbo
from pathscore.optimiser import OptimizerSpec
from pathscore.svi import SVI

Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """One row of the result; `ratio_to_handwritten` is the median of per-round ratios."""

    case: str
    variant: str
    threads: int
    milliseconds: float
    ratio_to_handwritten: float


def handwritten(case: Case) -> Step:
    """Plain PyTorch with fused Adam."""
    return STEPS[case.latent](case)


def pyro_svi(case: Case) -> Step:
    """Pyro's own SVI, Adam and validation settings, as its tutorials use them."""
    model, guide = VAE(**case.sizes), AmortizedGuide(**case.sizes)
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO(max_plate_nesting=1))
    store = pyro.get_param_store()
    state = {"params": {}, "constraints": {}}

    def step(x):
        # A store of its own, as cases share parameter names; entering it is a small part of the step.
        with store.scope(state):
            return svi.step(x)

    return step


def eager(case: Case) -> Step:
    """`pathscore.SVI` with `--elbo trace`."""
    model, guide = VAE(**case.sizes), AmortizedGuide(**case.sizes)
    return SVI(model, guide, OptimizerSpec(lr=1e-3), make_elbo("trace"), per_datum=True).step


VARIANTS: dict[str, Callable[[Case], Step]] = {"handwritten": handwritten, "pyro-svi": pyro_svi, "eager": eager}


def measure(
    names: Iterable[str], *, rounds: int = 15, seconds: float = 0.5, warm_up: int = 5, clock: Clock = time.perf_counter
) -> list[Timing]:
    """Time every variant of the named cases: `rounds` slices of `seconds` each."""
    return [timing for name in names for timing in measure_case(CASES[name], rounds, seconds, warm_up, clock)]


def measure_case(case: Case, rounds: int, seconds: float, warm_up: int, clock: Clock) -> list[Timing]:
    """The timings of one case."""
    torch.manual_seed(0)
    x, steps = case.data(), {name: make(case) for name, make in VARIANTS.items()}
    for step in steps.values():
        for _ in range(warm_up):
            step(x)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(slice_of_time(step, x, seconds, clock))
    return [
        Timing(
            case.name,
            name,
            torch.get_num_threads(),
            1e3 * statistics.median(found),
            statistics.median(a / b for a, b in zip(found, times["handwritten"], strict=True)),
        )
        for name, found in times.items()
    ]


def slice_of_time(step: Step, x: torch.Tensor, seconds: float, clock: Clock) -> float:
    """Seconds a step takes, averaged over about `seconds`."""
    count, start = 0, clock()
    while (elapsed := clock() - start) < seconds or count == 0:
        step(x)
        count += 1
    return elapsed / count
