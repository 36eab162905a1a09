"""`python -m benchmarks steps [--cases a,b] [--threads 1,2] [--rounds 15] [--seconds 0.5] [--cpu-time] [--tiny] …`."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from benchmarks.cases import CASES, Case
from benchmarks.footprint import footprints
from benchmarks.numpyro_process import has_numpyro
from benchmarks.products import flops
from benchmarks.steps import Plan, Timing, measure
from benchmarks.whole_run import seconds

TINY = Case("digits", 8, 4, 2, 4, "normal")


def main() -> None:
    """Measure, print a table, and write JSON if asked for."""
    args = parser().parse_args()
    cases = [TINY] if args.tiny else [CASES[name] for name in args.cases.split(",")]
    plan = Plan(args.rounds, args.seconds, args.cpu_time, args.numpyro if has_numpyro(args.numpyro) else None)
    if args.tiny:
        plan = dataclasses.replace(plan, rounds=1, seconds=0.01)
    if plan.numpyro is None:
        print(f"without NumPyro, which {args.numpyro} cannot import: pip install -e '.[numpyro]', or --numpyro PYTHON")
    rows = [row for threads in args.threads for row in measure(cases, threads, plan)]
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    if args.tiny:
        return
    for case in cases:
        print(f"\n{case.name}: {flops(case) / 1e6:.1f} million operations in matrix products")
        for threads in args.threads:
            print(footprints(case, threads, plan.numpyro))
    print(f"\npython run.py, imports included: {seconds(['--quiet']):.1f} s")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description="Timings of Pathscore.")
    made.add_argument("what", choices=["steps"], help="steps: milliseconds of one training step")
    made.add_argument("--cases", default=",".join(CASES), type=_cases, help=f"some of {', '.join(CASES)}")
    made.add_argument("--threads", default="1", type=_numbers, help="intra-op threads, as in 1,2")
    made.add_argument("--rounds", type=int, default=15, help="turns that each variant takes")
    made.add_argument("--seconds", type=float, default=0.5, help="length of a turn")
    made.add_argument("--cpu-time", action="store_true", help="processor seconds: for a busy machine, one thread only")
    made.add_argument("--numpyro", default=sys.executable, metavar="PYTHON", help="interpreter that has NumPyro")
    made.add_argument("--json", type=Path, help="write the rows to this file")
    made.add_argument("--tiny", action="store_true", help="one short turn of a tiny case, to see that it works")
    return made


def table(rows: list[Timing]) -> str:
    """The rows as text: times, ratios, and the share of a step that its matrix products would take alone."""
    head = f"{'case':16} {'variant':21} {'threads':>7} {'ms':>8} {'/ by hand':>9} {'/ numpyro':>9} {'products':>8}"
    lines = [
        f"{row.case:16} {row.variant:21} {row.threads:7d} {row.milliseconds:8.3f} {row.ratio_to_handwritten:9.2f} "
        + (f"{row.ratio_to_numpyro:9.2f}" if row.ratio_to_numpyro is not None else f"{'–':>9}")
        + f" {100 * row.share_of_products:6.0f} %"
        for row in rows
    ]
    return "\n".join([head, *lines])


def _cases(text: str) -> str:
    unknown = [name for name in text.split(",") if name not in CASES]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}: choose from {', '.join(CASES)}")
    return text


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes whole numbers, as in 1,2, got {text!r}") from None


if __name__ == "__main__":
    main()
