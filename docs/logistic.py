"""Estimators on Bayesian logistic regression, for docs/reproductions.md: `python docs/logistic.py TABLE`.

variance: the variance of one gradient at four guides, from one draw and a batch of 32.
training SEED …: the exact ELBO along training by configs/logistic.toml, for estimators and numbers of draws.
summary: the table of the lines that `training` has written to docs/measured/logistic-training.jsonl.
posterior: the guides that maximise the exact ELBO, beside NUTS.

The best guide of each covariance is found with exact gradients, so distances from it are exact too.
"""

import json
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyro
import torch
from pyro.infer import MCMC, NUTS
from scipy import stats

from guides import COVARIANCES
from models.logistic import LogisticRegression, exact_bound
from pathscore import Config, measure
from pathscore.data import load_dataset
from pathscore.data.batches import Batches
from pathscore.gradients.results import variance_ratio
from pathscore.runs.assembly import assemble

HERE = Path(__file__).resolve().parent
PRESET = HERE.parent / "configs" / "logistic.toml"
KEPT = HERE / "measured" / "logistic-training.jsonl"
STEPS = (100, 500, 1000, 2500, 5000)
RUNS = {
    "pathwise": 50,
    "score": 50,
    "score-avg": 50,
    "delta(order=1)": 50,
    "delta": 50,
    "measure-valued": 50,
    "pathwise ": 125,
    "score-avg ": 125,
    "measure-valued ": 1,
}
"""Estimator → draws a step. A space behind the name: as many model evaluations as one draw of measure-valued, 125."""


def training_set() -> tuple[torch.Tensor, torch.Tensor]:
    """x and y in double precision."""
    data = load_dataset("breast-cancer")
    assert data.labels is not None
    return data.x.double(), data.labels


def best(covariance: str) -> torch.nn.Module:
    """The guide with the largest ELBO, by L-BFGS on the exact bound."""
    x, y = training_set()
    guide = COVARIANCES[covariance]("w", x.shape[1] + 1).double()
    optimiser = torch.optim.LBFGS(guide.parameters(), max_iter=2000, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = -exact_bound(guide.law(), x, y)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    return guide


def narrowed(factor: float) -> torch.nn.Module:
    """The best diagonal guide with its scales multiplied by a factor."""
    guide = best("diagonal")
    with torch.no_grad():
        guide.log_scale.add_(np.log(factor))
    return guide


def variance() -> None:
    """Variance of one gradient: one draw, the first batch of 32 rows."""
    x, y = training_set()
    model = LogisticRegression(len(x)).double()
    start = COVARIANCES["diagonal"]("w", x.shape[1] + 1).double()
    for name, guide in (
        ("start, N(0, I)", start),
        ("best diagonal guide", best("diagonal")),
        ("the same, scales × 0.3", narrowed(0.3)),
        ("the same, scales × 0.1", narrowed(0.1)),
        ("best full guide", best("full")),
    ):
        batch = next(Batches((x, y), 32, 0, "none").rest(0))
        with pyro.get_param_store().scope():
            found = [
                *measure(model, guide, *batch, estimators=QUICK, replicates=20_000, skip_illegal=True).rows,
                *measure(model, guide, *batch, estimators=SLOW, replicates=4_000, skip_illegal=True).rows,
            ]
        rows = {row.name: row for row in found}
        print(f"\n{name}")
        for row in found:
            print(f"  {row.name:16} {row.total_variance:12.4g} ± {row.variance_se:8.2g}  evaluations {row.evaluations}")
        for a, b in PAIRS:
            if a in rows and b in rows:
                low, high = variance_ratio(rows[a], rows[b])
                print(f"  {a} ÷ {b}: {rows[a].total_variance / rows[b].total_variance:.3g} ({low:.3g} to {high:.3g})")


QUICK = ["pathwise", "score", "score-avg"]
SLOW = ["delta(order=1)", "delta", "measure-valued", "pathwise"]
PAIRS = (("score", "pathwise"), ("score-avg", "delta(order=1)"), ("score-avg", "delta"), ("measure-valued", "pathwise"))


def training(*seeds: int) -> None:
    """One line of JSON for each estimator and seed: the exact ELBO after `STEPS` steps."""
    for seed in seeds:
        for word, draws in RUNS.items():
            found = list(curve(word.strip(), draws, seed))
            line = {"estimator": word.strip(), "draws": draws, "seed": seed, "elbo": found}
            with KEPT.open("a") as file:
                file.write(json.dumps(line) + "\n")


def curve(estimator: str, draws: int, seed: int) -> Iterator[float]:
    """The exact ELBO after each number of steps in `STEPS`."""
    config = replace(Config.from_toml(PRESET), estimator=estimator, particles=draws, seed=seed, compile="on")
    job, (x, y) = assemble(config), training_set()
    batches, step = Batches(job.training, 32, seed, "none"), 0
    for epoch in range(STEPS[-1]):
        for batch in batches.rest(epoch):
            job.svi.step(*batch)
            step += 1
            if step in STEPS:
                with torch.no_grad():
                    yield exact_bound(deepcopy(job.guide).double().law(), x, y).item()
            if step == STEPS[-1]:
                return


def summary() -> None:
    """Nats below the best diagonal guide: mean and 95 % interval over seeds."""
    with torch.no_grad():
        top = exact_bound(best("diagonal").law(), *training_set()).item()
    print(f"ELBO of the best diagonal guide: {top:.3f} nats")
    lines = [json.loads(line) for line in KEPT.read_text().splitlines()]
    for word, draws in RUNS.items():
        runs = [r["elbo"] for r in lines if (r["estimator"], r["draws"]) == (word.strip(), draws)]
        if not runs:
            continue
        gaps = top - np.array(runs)
        half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(0, ddof=1) / len(gaps) ** 0.5
        cells = " | ".join(f"{m:.3g} ± {h:.2g}" for m, h in zip(gaps.mean(0), half, strict=True))
        print(f"| {word.strip()} | {draws} | {len(gaps)} | {cells} |")


def posterior(draws: int = 1000, warmup: int = 300) -> None:
    """The best guides beside one chain of NUTS: means in posterior deviations, and ratios of deviations."""
    x, y = training_set()
    chain = MCMC(NUTS(LogisticRegression(len(x))), draws, warmup, disable_progbar=True)
    chain.run(x, y)
    w, found = chain.get_samples()["w"], chain.diagnostics()["w"]
    print(
        f"NUTS: {draws} draws, R-hat up to {found['r_hat'].max():.3f}, effective draws from {found['n_eff'].min():.0f}"
    )
    for covariance in COVARIANCES:
        with torch.no_grad():
            q = best(covariance).law()
            shift, ratio = ((q.mean - w.mean(0)) / w.std(0)).abs(), q.stddev / w.std(0)
            bound = exact_bound(q, x, y)
        print(
            f"{covariance}: ELBO {bound:.2f}; means apart by {shift.max():.2f} at most; "
            f"deviation ÷ chain's {ratio.min():.2f} to {ratio.max():.2f}, mean {ratio.mean():.2f}"
        )


TABLES = {"variance": variance, "summary": summary, "training": training, "posterior": posterior}

if __name__ == "__main__":
    torch.set_num_threads(1)
    pyro.set_rng_seed(0)
    torch.set_default_dtype(torch.float32 if sys.argv[1] == "training" else torch.float64)
    TABLES[sys.argv[1]](*map(int, sys.argv[2:]))
