"""`python -m benchmarks steps|parts|evaluation [--cases a,b] [--threads 1,2] [--rounds 15] [--tiny] …`."""

import argparse
import dataclasses
import json
import platform
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from benchmarks.cases import CASES, Case
from benchmarks.evaluation import DATA, PARTICLES, evaluation
from benchmarks.footprint import footprints
from benchmarks.numpyro_process import has_numpyro
from benchmarks.parts import parts
from benchmarks.products import flops
from benchmarks.steps import Plan, Timing, measure
from benchmarks.variants import EXTRA, VARIANTS
from benchmarks.whole_run import seconds

ALL = (*VARIANTS, "numpyro")
TINY = Case("digits", 8, 4, 2, 4, "normal")


def main() -> None:
    """Measure, print a table, and write JSON if it is asked for."""
    args = parser().parse_args()
    torch.set_float32_matmul_precision(args.matmul_precision)
    # The wide case takes seconds a step on one core.
    named = args.cases or [name for name in CASES if args.device == "cuda" or name != "wide"]
    cases = [TINY] if args.tiny else [CASES[name] for name in named]
    if args.what == "evaluation":
        for threads in args.threads:
            torch.set_num_threads(threads)
            for case in cases:
                print(f"{case.name:16} threads {threads}", described(case, *((2, 10) if args.tiny else (args.points,))))
        return
    if args.what == "parts":
        torch.set_num_threads(args.threads[0])
        clock = Plan(cpu_time=args.cpu_time).clock
        for case in cases:
            print(f"{case.name:16}", ", ".join(f"{name} {ms:.3f} ms" for name, ms in parts(case, clock).items()))
        return
    numpyro = args.numpyro if "numpyro" in args.variants and has_numpyro(args.numpyro) else None
    there = (*args.variants, "handwritten-graph") if args.device == "cuda" else args.variants
    variants = tuple(name for name in (VARIANTS | EXTRA) if name in there)
    plan = Plan(args.rounds, args.seconds, args.cpu_time, numpyro, variants, args.device)
    if args.tiny:
        plan = dataclasses.replace(plan, rounds=1, seconds=0.01)
    if "numpyro" in args.variants and numpyro is None:
        print(f"without NumPyro ({args.numpyro} cannot import it): pip install -e '.[numpyro]', or --numpyro PYTHON")
    print(hardware(args.device))
    rows = [row for threads in args.threads for row in measure(cases, threads, plan)]
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    if args.tiny or args.ratios or args.device != "cpu":
        return
    for case in cases:
        print(f"\n{case.name}: {flops(case) / 1e6:.1f} million operations in matrix products")
        print(footprints(case, args.threads[0], plan.numpyro))
    print(f"\npython run.py, imports included: {seconds(['--quiet']):.1f} s")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description="Timings of Pathscore.")
    made.add_argument(
        "what",
        choices=["steps", "parts", "evaluation"],
        help="steps: time of a training step; parts: of each part of a compiled step; evaluation: of a log-likelihood",
    )
    made.add_argument("--cases", type=_among(CASES), help=f"cases, from {', '.join(CASES)}")
    made.add_argument("--variants", default=ALL, type=_among((*ALL, *EXTRA)), help=f"variants, from {', '.join(ALL)}")
    made.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where steps are timed")
    made.add_argument("--ratios", action="store_true", help="leave out build times, memory and the whole run")
    made.add_argument("--matmul-precision", default="highest", choices=["highest", "high", "medium"])
    made.add_argument("--threads", default="1", type=_numbers, help="numbers of intra-op threads, for example 1,2")
    made.add_argument("--rounds", type=int, default=15, help="number of turns of each variant")
    made.add_argument("--seconds", type=float, default=0.5, help="seconds per turn")
    made.add_argument("--points", type=int, default=100, help="data points for evaluation")
    made.add_argument("--cpu-time", action="store_true", help="processor time, for a busy machine, with one thread")
    made.add_argument("--numpyro", default=sys.executable, metavar="PYTHON", help="interpreter that has NumPyro")
    made.add_argument("--json", type=Path, help="write the rows to this file")
    made.add_argument("--tiny", action="store_true", help="one short turn of a tiny case, to check that it works")
    return made


def described(case: Case, *amount: int) -> str:
    """Time and memory of the evaluation of a test set, in words."""
    found = evaluation(case, *amount)
    return (
        f"{DATA} data points × {PARTICLES} draws: {found.seconds:.0f} s ({100 * found.products:.0f} % of it for the "
        f"decoder's matrix products), {found.megabytes:.0f} MB"
    )


def table(rows: list[Timing]) -> str:
    """The rows as text: times, ratios, and the share of the step's time that its matrix products alone take."""
    head = f"{'case':16} {'variant':21} {'threads':>7} {'ms':>8} {'/ by hand':>9} {'/ numpyro':>9} {'/ graph':>9} "
    head += f"{'/ pyro':>9} {'products':>8}"
    lines = [
        f"{row.case:16} {row.variant:21} {row.threads:7d} {row.milliseconds:8.3f} {row.ratio_to_handwritten:9.2f} "
        + " ".join(map(_ratio, (row.ratio_to_numpyro, row.ratio_to_graph, row.ratio_to_pyro)))
        + f" {100 * row.share_of_products:6.0f} %"
        for row in rows
    ]
    return "\n".join([head, *lines])


def _ratio(value: float | None) -> str:
    return f"{value:9.3f}" if value is not None else f"{'–':>9}"


def hardware(device: str) -> str:
    """The processor's model, and the card's where steps are timed on one."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = models[0] if models else platform.processor() or "an unknown processor"
    return f"{found}, {torch.cuda.get_device_name()}" if device == "cuda" else found


def _among(names: Iterable[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        unknown = [name for name in text.split(",") if name not in names]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}: choose from {', '.join(names)}")
        return text.split(",")

    return read


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes whole numbers, as in 1,2, got {text!r}") from None


if __name__ == "__main__":
    main()
