"""Weight noise on digits, for docs/reproductions.md: `python docs/bnn.py TABLE`.

variance: the gradient's variance by the means of the weights, 64-32-10 units, σ = 0.1, against the batch, as Wen et al.
    2018 (section 5.1) draw it, with the slope in logarithms and the time of a pass.
predict SEED SEED …: accuracy, log-loss and calibration error of `--model bnn` and of a plain network of the same size.
"""

import math
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from guides import WeightGuide
from models.bnn import BayesianNetwork
from models.entries.bnn import scores
from pathscore import Config, make_elbo
from pathscore.data import load_dataset
from pathscore.runs.job import Call, run
from pathscore.svi import SVI

PRESET = Path(__file__).resolve().parents[1] / "configs" / "bnn.toml"
ESTIMATORS = ("pathwise", "flipout", "local-reparameterisation")
BATCHES = (32, 64, 128, 256, 512, 1024)
SIZES = (64, 32, 10)
DRAWS, GROUPS = 400, 20


def pair(rows: int) -> tuple[BayesianNetwork, WeightGuide]:
    """The network at its start, every σ = 0.1."""
    torch.manual_seed(0)
    shapes = {"net.0.weight": (32, 64), "net.0.bias": (32,), "net.2.weight": (10, 32), "net.2.bias": (10,)}
    return BayesianNetwork(rows, SIZES), WeightGuide(shapes, 0.1)


def gradients(estimator: str, batch: int) -> tuple[torch.Tensor, float]:
    """Gradients (DRAWS, P) of the mean log-likelihood of a batch by the means of the weights, and seconds a draw.

    The KL is in closed form, so that it adds no variance.
    """
    data = load_dataset("digits")
    x, y = data.x[:batch], data.labels[:batch]
    model, guide = pair(batch)
    svi = SVI(model, guide, "adam", make_elbo("trace", estimator, kl="analytic"), publish=False)
    means = list(guide.loc.values())
    torch.manual_seed(1)
    found, seconds = [], []
    with svi.scope():
        for _ in range(DRAWS):
            start = time.perf_counter()
            loss = svi.elbo.differentiable_loss(model, guide, x, y) / batch
            grads = torch.autograd.grad(loss, means)
            seconds.append(time.perf_counter() - start)
            found.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(found), statistics.median(seconds)


def slope(variances: list[list[float]]) -> tuple[float, float]:
    """The slope of log variance on log batch, the mean over groups of draws, and half its 95 % interval."""
    x = torch.tensor([math.log(b) for b in BATCHES], dtype=torch.float64)
    y = torch.tensor(variances, dtype=torch.float64).log()  # (groups, batches)
    centred = x - x.mean()
    slopes = (y * centred).sum(1) / (centred**2).sum()
    half = stats.t.ppf(0.975, len(slopes) - 1) * slopes.std().item() / len(slopes) ** 0.5
    return slopes.mean().item(), half


def variance() -> None:
    """The table of variances, total over the means of the weights."""
    print("| estimator | " + " | ".join(f"B = {b}" for b in BATCHES) + " | slope | ms at 1 024 |")
    print("|---|" + "---|" * (len(BATCHES) + 2))
    for estimator in ESTIMATORS:
        drawn = [gradients(estimator, batch) for batch in BATCHES]
        totals = [g.var(0).sum().item() for g, _ in drawn]
        groups = [[part.var(0).sum().item() for part in g.chunk(GROUPS)] for g, _ in drawn]
        mean, half = slope([list(column) for column in zip(*groups, strict=True)])
        cells = " | ".join(f"{total:.4f}" for total in totals)
        print(f"| {estimator} | {cells} | {mean:.2f} ± {half:.2f} | {1e3 * drawn[-1][1]:.1f} |", flush=True)


def plain(seed: int, steps: int = 2000) -> dict[str, float]:
    """A network without distributions: the same units, Adam at the same rate, batches of 128."""
    data = load_dataset("digits")
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(steps):
        rows = torch.randint(len(data.x), (128,))
        optimiser.zero_grad()
        F.cross_entropy(net(data.x[rows]), data.labels[rows]).backward()
        optimiser.step()
    with torch.no_grad():
        return scores(net(data.x_test).softmax(-1).double(), data.labels_test)


def bayesian(seed: int, estimator: str) -> dict[str, float]:
    """The figures of a run of the preset with one estimator for the weights."""
    base = Config.from_toml(PRESET)
    with tempfile.TemporaryDirectory() as folder:
        chosen = replace(base, seed=seed, estimator=f"*.weight={estimator},*=auto")
        return run(chosen, Call(out=str(Path(folder) / "run"), quiet=True)).summary["measures"]


def predict(*seeds: int) -> None:
    """The mean over seeds and half its 95 % interval, of the held-out figures."""
    kinds = {"plain network": plain} | {name: partial(bayesian, estimator=name) for name in ESTIMATORS}
    names = ("accuracy", "log-loss", "calibration error")
    print("| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for kind, make in kinds.items():
        figures = [make(seed) for seed in seeds]
        cells = []
        for name in names:
            values = [f[name] for f in figures]
            half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
            cells.append(f"{statistics.mean(values):.3f} ± {half:.3f}")
        print(f"| {kind} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """The table that the first word names."""
    table, *seeds = sys.argv[1:]
    if table == "variance":
        variance()
    else:
        predict(*map(int, seeds))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
