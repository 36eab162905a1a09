"""`python -m benchmarks steps [--cases a,b] [--threads 1] [--rounds 15] [--seconds 0.5] [--cpu-time] [--tiny] …`."""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch

from benchmarks.cases import CASES
from benchmarks.steps import measure


def main() -> None:
    """Measure, print a table, and write JSON if asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Timings of Pathscore.")
    parser.add_argument("what", choices=["steps"], help="steps: milliseconds of one training step")
    parser.add_argument("--cases", default=",".join(CASES), help=f"some of {', '.join(CASES)}")
    parser.add_argument("--threads", type=int, default=1, help="intra-op threads")
    parser.add_argument("--rounds", type=int, default=15, help="turns that each variant takes")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn")
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor seconds: for a busy machine, one thread only"
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--tiny", action="store_true", help="one short turn of the digits, to see that it works")
    args = parser.parse_args()
    names = ["digits"] if args.tiny else args.cases.split(",")
    unknown = [name for name in names if name not in CASES]
    if unknown:
        parser.error(f"--cases: unknown {', '.join(unknown)}: choose from {', '.join(CASES)}")
    torch.set_num_threads(args.threads)
    rounds, seconds = (1, 0.02) if args.tiny else (args.rounds, args.seconds)
    clock = time.process_time if args.cpu_time else time.perf_counter
    rows = measure(names, rounds=rounds, seconds=seconds, clock=clock)
    print(f"{'case':16} {'variant':12} {'ms':>8} {'ratio':>6}")
    for row in rows:
        print(f"{row.case:16} {row.variant:12} {row.milliseconds:8.2f} {row.ratio_to_handwritten:6.2f}")
    if args.json:
        args.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
