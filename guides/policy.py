"""Policies as guides: π(a | s) = softmax(logits[s]), one row of logits for each state.

`BanditPolicy(bandit)` is the guide of `models.Bandit`, `GridPolicy(world)` that of `models.GridWorld`. Each draws the
chance of its environment from the model's own law, so that the bound charges the policy for its choices only.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from models.bandit import Bandit
from models.gridworld import GridWorld


class SoftmaxPolicy(nn.Module):
    """A table of logits (states, actions), 0 at first: every action is as likely."""

    def __init__(self, states: int, actions: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(states, actions))

    @property
    def probs(self) -> Tensor:
        """π(a | s), (states, actions)."""
        return self.logits.softmax(-1)


class BanditPolicy(SoftmaxPolicy):
    """ "action" ~ softmax(logits[n]) in every task n."""

    def __init__(self, bandit: Bandit):
        super().__init__(*bandit.values.shape)
        self.bandit = bandit

    def forward(self) -> None:
        """The program."""
        pyro.module("policy", self)
        with pyro.plate("tasks", self.bandit.tasks, dim=-1, device=str(self.logits.device)):
            pyro.sample("action", dist.Categorical(logits=self.logits))
            if self.bandit.noise:
                self.bandit.draw_noise()


class GridPolicy(SoftmaxPolicy):
    """a_t ~ softmax(logits[s_t]) in the cell s_t that the moves before have led to."""

    def __init__(self, world: GridWorld):
        super().__init__(*world.pays.shape)
        self.world = world

    def forward(self) -> None:
        """The program."""
        pyro.module("policy", self)
        cell = self.world.begin()
        for t in range(self.world.horizon):
            move = pyro.sample(f"a{t}", dist.Categorical(logits=self.logits[cell]))
            cell = self.world.follows[cell, self.world.blown(t, move)]
