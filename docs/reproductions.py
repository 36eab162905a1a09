"""The training bound of a run by stretches of steps: `python docs/reproductions.py RUN_DIR 2083`.

metrics.jsonl holds, every 50 steps, the mean of the training bound since the epoch began. Stretches of another length
(a published epoch, of another number of images) are differences of sums, cut at the nearest line.
"""

import sys
from itertools import pairwise
from pathlib import Path

from pathscore.runs.metrics import read_metrics


def sums(lines: list[dict]) -> dict[int, float]:
    """Step → sum of the training bound over all steps up to it, in nats per data point."""
    found, before, start = {0: 0.0}, 0.0, 0
    for line in lines:
        found[line["step"]] = before + line["train_elbo"] * (line["step"] - start)
        if line.get("epoch_end"):
            before, start = found[line["step"]], line["step"]
    return found


def stretches(lines: list[dict], length: int) -> list[tuple[int, int, float, float]]:
    """(first step, last step, mean bound, mean bound of its last 50 steps) of every stretch that is complete."""
    total = sums(lines)
    steps = sorted(total)
    ends = [min(steps, key=lambda step: abs(step - n * length)) for n in range(steps[-1] // length + 1)]
    found = []
    for start, end in pairwise(ends):
        late = max(step for step in steps if step <= end - 50)
        means = [(total[end] - total[step]) / (end - step) for step in (start, late)]
        found.append((start + 1, end, *means))
    return found


def main(run: str, length: str) -> None:
    """Print the table."""
    lines = read_metrics(Path(run) / "metrics.jsonl")
    print("steps: mean of the training bound, of the last 50 steps")
    for first, last, mean, late in stretches(lines, int(length)):
        print(f"{first:6d} – {last:6d}: {mean:8.2f} {late:8.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
