"""The entry of the bandits: `--model bandit`. The policy is the guide, and the program is its own data.

Its code is imported when it is called, so that the flags of the program are known without importing torch.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pathscore.config import NOT_NEGATIVE, POSITIVE, between, option
from pathscore.programs.entry import Program, first_sentence


@dataclasses.dataclass(frozen=True)
class Options:
    """The program: bandits, with a softmax policy for each"""

    rewards: str = option(
        "testbed",
        "values of the arms: N(4, 1) (testbed), or 1 for one arm and 0 for the others (answer)",
        choices=("testbed", "answer"),
    )
    arms: int = option(10, "arms of each bandit", check=between(2, 1000))
    tasks: int = option(100, "bandits side by side", check=between(1, 100_000))
    noise: float = option(0.0, "standard deviation of a reward about the arm's value", check=NOT_NEGATIVE)
    temperature: float = option(0.1, "weight of the policy's entropy beside the expected return", check=POSITIVE)


def make(data: Any, options: Options) -> tuple[Any, Any]:
    """Model and guide."""
    from guides.policy import BanditPolicy
    from models.bandit import REWARDS, Bandit

    values = REWARDS[options.rewards](options.tasks, options.arms)
    bandit = Bandit(values, options.noise, options.temperature)
    return bandit, BanditPolicy(bandit)


def settle(options: Options, data: Any, summed: bool) -> dict[str, Any]:
    """A length and a rate that suit a table of logits."""
    return {"steps": 1000, "lr": 0.05}


def title(options: Options) -> str:
    """How many bandits, and their size."""
    return f"{options.tasks} × {options.arms} arms"


def measures(model: Any, guide: Any, args: tuple, options: Options) -> dict[str, float]:
    """The exact expected return, a mean over the tasks, beside the best one; and how often the best arm is taken."""
    probs, values = guide.probs.detach(), model.values
    return {
        "expected return": model.expected_return(probs).mean().item(),
        "best possible return": values.amax(-1).mean().item(),
        "probability of the best arm": probs.gather(-1, values.argmax(-1, keepdim=True)).mean().item(),
    }


def watched(model: Any, guide: Any, options: Options) -> dict[str, float]:
    """The figures that change during training."""
    found = measures(model, guide, (), options)
    return {name: found[name] for name in ("expected return", "probability of the best arm")}


def reference(model: Any, guide: Any, args: tuple, options: Options) -> dict[str, float]:
    """The exact bound of the policy, and the log-evidence, which is the largest that a policy reaches without noise."""
    import torch

    probs, value = guide.probs.detach(), model.values / options.temperature
    uniform = -torch.as_tensor(float(options.arms)).log()
    divergence = (torch.special.xlogy(probs, probs) - probs * uniform).sum()
    noise = model.tasks * (options.noise / options.temperature) ** 2 / 2
    return {
        "elbo": ((probs * value).sum() - divergence).item(),
        "log_evidence": (value.logsumexp(-1) + uniform).sum().item() + noise,
    }


def pictures(model: Any, guide: Any, args: tuple, data: Any, options: Options) -> dict[str, Any]:
    """The policy beside the values of the arms."""
    from models.pictures import bandit_policy

    return {"policy": bandit_policy(model.values, guide.probs.detach())}


def tables() -> Mapping[str, Mapping[str, str]]:
    """The table that the rewards come from."""
    from models.bandit import REWARDS

    return {"--rewards": {name: first_sentence(make) for name, make in REWARDS.items()}}


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
