"""The entry of the walk on a grid: `--model gridworld`. The policy is the guide, and the program is its own data.

Its code is imported when it is called, so that the flags of the program are known without importing torch.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pathscore.config import POSITIVE, between, option
from pathscore.programs.entry import Program


@dataclasses.dataclass(frozen=True)
class Options:
    """The program: a walk on a grid, with a softmax policy in each cell"""

    map: str = option("lake", "map of start, goal and holes", choices=("lake", "room", "bridge"))
    horizon: int = option(7, "moves of an episode", check=between(1, 1000))
    discount: float = option(0.95, "γ: a reward after t moves counts γ^t", check=between(0, 1))
    slip: float = option(0.0, "probability that a move goes to one of its two sides", check=between(0, 1))
    temperature: float = option(0.05, "weight of the policy's entropy beside the expected return", check=POSITIVE)


def make(data: Any, options: Options) -> tuple[Any, Any]:
    """Model and guide."""
    from guides.policy import GridPolicy
    from models.gridworld import MAPS, GridWorld

    world = GridWorld(MAPS[options.map], options.horizon, options.discount, options.slip, options.temperature)
    return world, GridPolicy(world)


def settle(options: Options, data: Any, summed: bool) -> dict[str, Any]:
    """A length and a rate that suit a table of logits, and a few episodes in each step."""
    return {"steps": 300, "lr": 0.1, "particles": 4}


def title(options: Options) -> str:
    """The map and the horizon."""
    return f"{options.map}, {options.horizon} moves"


def measures(model: Any, guide: Any, args: tuple, options: Options) -> dict[str, float]:
    """The exact expected return of an episode, beside the best one and that of random moves."""
    import torch

    from models import returns

    uniform = torch.full_like(guide.probs, 0.25)
    return {
        **watched(model, guide, options),
        "best possible return": returns.best_return(model).item(),
        "return of random moves": returns.expected_return(model, uniform).item(),
    }


def watched(model: Any, guide: Any, options: Options) -> dict[str, float]:
    """The figure that changes during training."""
    from models import returns

    return {"expected return": returns.expected_return(model, guide.probs.detach()).item()}


def reference(model: Any, guide: Any, args: tuple, options: Options) -> dict[str, float]:
    """The exact bound of the policy, and the log-evidence."""
    from models import returns

    return {
        "elbo": returns.elbo(model, guide.probs.detach()).item(),
        "log_evidence": returns.log_evidence(model).item(),
    }


def pictures(model: Any, guide: Any, args: tuple, data: Any, options: Options) -> dict[str, Any]:
    """The policy as arrows on the map, over the cells that it visits."""
    from models import returns
    from models.pictures import grid_policy

    probs = guide.probs.detach()
    return {"policy": grid_policy(model.cells, probs, returns.visits(model, probs).amax(0))}


def tables() -> Mapping[str, Mapping[str, str]]:
    """The maps."""
    from models.gridworld import MAPS

    return {"--map": {name: " / ".join(rows) for name, rows in MAPS.items()}}


PROGRAM = Program(
    make=make,
    options=Options,
    takes=(),
    whole=True,
    settle=settle,
    title=title,
    measures=measures,
    watched=watched,
    reference=reference,
    pictures=pictures,
    tables=tables,
)
