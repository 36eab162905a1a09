"""The entry of Bayesian logistic regression: `--model logistic`, on breast cancer from scikit-learn by default.

Its code is imported when it is called, so that its flags are known without importing torch.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pathscore.config import between, option
from pathscore.programs.entry import Program, first_sentence

BINS = 10
"""Groups of predicted probability, of equal width, in the calibration error."""


@dataclasses.dataclass(frozen=True)
class Options:
    """The program: Bayesian logistic regression"""

    covariance: str = option("diagonal", "covariance of the guide's Normal", choices=("diagonal", "full"))
    prior_scale: float = option(1.0, "standard deviation of a weight before the data", check=between(1e-3, 1e3))


def make(data: Any, options: Options) -> tuple[Any, Any]:
    """The model for the whole data set, and a Normal guide over its weights."""
    from guides import COVARIANCES
    from models.logistic import LogisticRegression

    rows, width = data.x.shape
    return LogisticRegression(rows, options.prior_scale), COVARIANCES[options.covariance]("w", width + 1)


def settle(options: Options, data: Any, summed: bool) -> dict[str, Any]:
    """The published length, batch and number of draws (Mohamed et al., 2020)."""
    return {"steps": 5000, "batch_size": 32, "particles": 50}


def check(data: Any, options: Options, binarize: str) -> None:
    """Raise an error for measurements that are not finite and labels other than 0 and 1."""
    from pathscore.data import DataError, check_values

    check_values(data, "normal", binarize)
    for name, labels in (("y", data.labels), ("y_test", data.labels_test)):
        if not bool(((labels == 0) | (labels == 1)).all()):
            raise DataError(f"{data.name}: {name} has labels other than 0 and 1: --model logistic takes two classes")


def predicted(guide: Any, args: tuple) -> tuple[Any, Any]:
    """P(y = 1) of each row by quadrature, and the labels: (N,) each, in float64."""
    from copy import deepcopy

    from models.logistic import predictive

    x, y = args
    return predictive(deepcopy(guide).double().law(), x.double()), y.double()


def measures(model: Any, guide: Any, args: tuple, options: Options) -> dict[str, float]:
    """Held-out accuracy, Brier score and calibration error of the predicted probabilities, all between 0 and 1."""
    p, y = predicted(guide, args)
    return {
        "accuracy": ((p > 0.5) == (y == 1)).double().mean().item(),
        "Brier score": (p - y).square().mean().item(),
        "calibration error": calibration_error(p, y),
    }


def calibration_error(p: Any, y: Any) -> float:
    """Σ_b (n_b / N) |mean of y − mean of p| over `BINS` groups of equal width in p."""
    return sum((y - p)[rows].sum().abs().item() for rows in members(p)) / len(p)


def members(p: Any) -> list[Any]:
    """The rows of each group of predicted probability that has any, as masks (N,)."""
    group = (p * BINS).long().clamp(max=BINS - 1)
    return [group == b for b in range(BINS) if bool((group == b).any())]


def reference(model: Any, guide: Any, args: tuple, options: Options) -> dict[str, float]:
    """The log predictive density of the held-out rows by quadrature, where the run's own figure is sampled."""
    p, y = predicted(guide, args)
    return {"log predictive density": (y * p + (1 - y) * (1 - p)).log().mean().item()}


def floor(training: tuple, held_out: tuple, options: Options) -> dict[str, float]:
    """One probability for all rows."""
    share, y = training[1].double().mean(), held_out[1].double()
    return {"one probability": (y * share.log() + (1 - y) * (-share).log1p()).mean().item()}


def pictures(model: Any, guide: Any, args: tuple, data: Any, options: Options) -> dict[str, Any]:
    """The weights, and how often the label is 1 where it was predicted with a probability."""
    p, y = predicted(guide, args)
    return {"weights": weights(guide.law()), "calibration": calibration(p, y)}


def weights(q: Any) -> Any:
    """The guide's mean of each weight, with 95 % and 50 % of its Normal."""
    from pathscore.diagnostics.palette import LIGHT, axes, figure_of

    mean, deviation = (t.detach().cpu().double().numpy() for t in (q.mean, q.variance.sqrt()))
    names = [f"w[{i}]" for i in range(len(mean) - 1)] + ["bias"]
    ax, at = axes(LIGHT, None, (4.6, 0.19 * len(names) + 0.9)), range(len(names))
    ax.axvline(0, color=LIGHT.faint)
    for width, z in ((1, 1.96), (4, 0.674)):
        ax.hlines(at, mean - z * deviation, mean + z * deviation, color=LIGHT.main, linewidth=width, alpha=0.8)
    ax.plot(mean, at, "o", markersize=3, color=LIGHT.second)
    ax.set_yticks(at, names, fontsize=7)
    ax.invert_yaxis()
    ax.set(xlabel="weight: mean, 50 % and 95 % of the guide")
    return figure_of(ax)


def calibration(p: Any, y: Any) -> Any:
    """Shares of label 1 by groups of predicted probability, with the range of labels drawn from the predictions."""
    from scipy.stats import binom

    from pathscore.diagnostics.palette import LIGHT, axes, figure_of

    ax = axes(LIGHT, None, (3.9, 3.5))
    ax.plot([0, 1], [0, 1], color=LIGHT.faint)
    for rows in members(p):
        mean, count = p[rows].mean().item(), int(rows.sum())
        low, high = binom.ppf([0.025, 0.975], count, mean) / count
        ax.plot([mean, mean], [low, high], color=LIGHT.second, linewidth=6, alpha=0.35, solid_capstyle="butt")
        ax.plot(mean, y[rows].mean().item(), "o", markersize=4, color=LIGHT.main)
        ax.annotate(str(count), (mean, high), (0, 2), textcoords="offset points", fontsize=7, ha="center")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.1), xlabel="predicted probability", ylabel="share of label 1")
    ax.set_title("bars: 95 % if predictions are right; rows in a group", fontsize=8, color=LIGHT.text, loc="left")
    return figure_of(ax)


def tables() -> Mapping[str, Mapping[str, str]]:
    """The table that the program's own choice comes from."""
    from guides import COVARIANCES

    return {"--covariance": {name: first_sentence(kind) for name, kind in COVARIANCES.items()}}


PROGRAM = Program(
    make=make,
    options=Options,
    takes=("rows", "labels"),
    dataset="breast-cancer",
    whole=True,
    settle=settle,
    check=check,
    title=lambda options: f"{options.covariance} covariance",
    measures=measures,
    reference=reference,
    floor=floor,
    pictures=pictures,
    tables=tables,
)
