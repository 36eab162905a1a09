"""Bandits side by side: `Bandit(values)` is a Pyro model, one choice among A arms in each of N tasks.

The reward enters as a factor, so that the bound of a guide π is its expected return and its entropy:

    ELBO = Σ_n { E_π[reward_n] / temperature + entropy of π_n − log A }

`REWARDS[name](tasks, arms) -> (N, A)` makes the mean reward of every arm.
"""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

MEAN = 4.0
"""Mean of the arms' values in the testbed whose rewards are far from 0."""


def testbed(tasks: int, arms: int) -> Tensor:
    """Values of the arms ~ N(4, 1), the same for every seed of a run.

    References: Reinforcement Learning: An Introduction. R. S. Sutton, A. G. Barto, 2018 (section 2.8).
    """
    return MEAN + torch.randn(tasks, arms, generator=torch.Generator().manual_seed(0))


def one_right_answer(tasks: int, arms: int) -> Tensor:
    """Reward 1 for the first arm and 0 for the others: a question with one right answer."""
    return torch.eye(1, arms).repeat(tasks, 1)


REWARDS: dict[str, Callable[[int, int], Tensor]] = {"testbed": testbed, "answer": one_right_answer}


class Bandit(nn.Module):
    """N bandits with A arms each, in `plate("tasks", N)`: "action" ~ uniform, "reward" a factor.

    values: (N, A) mean rewards. noise: standard deviation of a reward about its mean; with noise, a site "noise"
        ~ N(0, 1) draws it, in the guide too. temperature: the weight of the policy's entropy beside the return.

    References:
        Reinforcement learning and control as probabilistic inference. S. Levine, 2018.
    """

    values: Tensor

    def __init__(self, values: Tensor, noise: float = 0.0, temperature: float = 1.0):
        super().__init__()
        self.noise, self.temperature = noise, temperature
        self.register_buffer("values", values)

    @property
    def tasks(self) -> int:
        """Number of bandits N."""
        return len(self.values)

    def forward(self) -> None:
        """The program."""
        with pyro.plate("tasks", self.tasks, dim=-1, device=str(self.values.device)):
            action = pyro.sample("action", dist.Categorical(logits=torch.zeros_like(self.values)))  # (…, N)
            pyro.factor("reward", self.reward(action) / self.temperature)

    def reward(self, action: Tensor) -> Tensor:
        """The rewards of the chosen arms, (…, N). It is called inside the plate, by the model only."""
        mean = self.values[torch.arange(self.tasks, device=action.device), action]
        return mean + self.noise * self.draw_noise() if self.noise else mean

    def draw_noise(self) -> Tensor:
        """The site "noise", (…, N): chance that no policy controls, so model and guide draw it from the same law."""
        return pyro.sample("noise", dist.Normal(torch.zeros_like(self.values[:, 0]), 1.0))

    def expected_return(self, probs: Tensor) -> Tensor:
        """Mean reward of each task under probabilities (N, A) of the arms, (N,)."""
        return (probs * self.values).sum(-1)
