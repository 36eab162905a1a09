"""Whether a run came to anything: `floor(job, args) -> figures`, `doubts(job, summary, lines) -> sentences`.

A run can end without an error and be worth nothing: a rate that is too high throws the parameters far away, and every
number is still finite. Two comparisons find it: with the bound at the start, and with a product of independent
variables, which knows the data's means and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pathscore.data import Arguments
from pathscore.runs.assembly import Assembly, binarized

MARGIN = 0.01
"""Share of the first bound by which the last must lie lower to count: means of noisy bounds differ a little."""


def floor(job: Assembly, args: Arguments) -> dict[str, float]:
    """What a model without latent variables gives the held-out data, by name; in nats per data point.

    args: the held-out data, as the program takes them.
    """
    mode = job.config.binarize or "none"
    training = binarized(job.training, "static" if mode == "dynamic" else mode)
    return dict(job.program.floor(training, args, job.config.options))


def doubts(job: Assembly, summary: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why the run is no success, in sentences; empty where nothing speaks against it. lines: those of its metrics."""
    return [text for text in (_fell(job, summary, lines), _below(summary)) if text]


def _fell(job: Assembly, summary: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str | None:
    """The training bound, unless its own weight on the KL terms changes what it is."""
    if job.config.kl_warmup or not lines:
        return None
    first, last = lines[0].get("train_elbo"), summary["train_elbo"]
    if last is None or not math.isfinite(last):
        return "the training bound is not finite: lower --lr"
    if first is None or last >= first - MARGIN * abs(first):
        return None
    return f"training ended at {last:.4g} nats, below the {first:.4g} nats of its first steps: lower --lr"


def _below(summary: Mapping[str, Any]) -> str | None:
    """The held-out bound beside the floor."""
    reached = summary.get("test_log_likelihood", summary.get("test_elbo"))
    for name, nats in summary["floor"].items():
        if reached is not None and not reached >= nats:
            reason = f"the model is worse than {name} ({reached:.4g} against {nats:.4g} nats)"
            return f"{reason}: train longer, or lower --lr"
    return None
