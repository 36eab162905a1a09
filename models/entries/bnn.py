"""The entry of the Bayesian neural network: `--model bnn`, a classifier of scikit-learn's digits by default.

Its code is imported when it is called, so that its flags are known without importing torch.
"""

import dataclasses
from itertools import pairwise
from typing import Any

from pathscore.config import between, option
from pathscore.programs.entry import Program

DRAWS = 50
"""Draws of the weights that predicted probabilities are a mean of."""


@dataclasses.dataclass(frozen=True)
class Options:
    """The program: a Bayesian neural network"""

    units: tuple[int, ...] = option((32,), "units of each hidden layer, as 64,32", check=between(1, 100_000))
    prior_scale: float = option(3.0, "standard deviation of a weight times √fan-in", check=between(1e-3, 1e3))


def make(data: Any, options: Options) -> tuple[Any, Any]:
    """The model for the whole data set, and independent Normals over its weights."""
    from guides.weights import WeightGuide
    from models.bnn import BayesianNetwork

    rows, width = data.x.shape
    sizes = (width, *options.units, int(data.labels.max()) + 1)
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        shapes |= {f"net.{2 * i}.weight": (outputs, inputs), f"net.{2 * i}.bias": (outputs,)}
    return BayesianNetwork(rows, sizes, options.prior_scale), WeightGuide(shapes)


def settle(options: Options, data: Any, summed: bool) -> dict[str, Any]:
    """A length in which the ELBO settles on digits, in under a minute."""
    return {"steps": 2000, "batch_size": 128}


def check(data: Any, options: Options, binarize: str) -> None:
    """Raise an error for measurements that are not finite."""
    from pathscore.data import check_values

    check_values(data, "normal", binarize)


def predicted(model: Any, guide: Any, x: Any) -> Any:
    """Class probabilities (N, C), from draws beside the run's random stream."""
    import torch

    from models.bnn import predictive

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return predictive(model, guide, x, DRAWS).double()


def measures(model: Any, guide: Any, args: tuple, options: Options) -> dict[str, float]:
    """Held-out accuracy, log-loss in nats, and calibration error of the predicted probabilities."""
    x, y = args
    return scores(predicted(model, guide, x), y)


def scores(p: Any, y: Any) -> dict[str, float]:
    """Accuracy, mean −log p(label) and the calibration error of the largest probability, of probabilities (N, C)."""
    from models.entries.logistic import calibration_error

    sure, label = p.max(-1)
    return {
        "accuracy": (label == y).double().mean().item(),
        "log-loss": -p.gather(-1, y[:, None]).log().mean().item(),
        "calibration error": calibration_error(sure, (label == y).double()),
    }


def floor(training: tuple, held_out: tuple, options: Options) -> dict[str, float]:
    """The shares of the classes, for all rows."""
    y, new = training[1], held_out[1]
    share = y.bincount(minlength=int(max(y.max(), new.max())) + 1).double() / len(y)
    return {"shares of the classes": share[new].log().mean().item()}


PROGRAM = Program(
    make=make,
    options=Options,
    takes=("rows", "labels"),
    dataset="digits",
    whole=True,
    settle=settle,
    check=check,
    title=lambda options: f"units {','.join(map(str, options.units))}",
    measures=measures,
    floor=floor,
)
