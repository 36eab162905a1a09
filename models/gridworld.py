"""A walk on a grid with rewards: `GridWorld(MAPS["lake"], horizon=12)` is a Pyro model of T moves.

A map is a tuple of strings: "S" the start, "." a free cell, "G" the goal, "H" a hole. A move into the goal pays 1, one
into a hole −1, and both end the walk. A move off the grid stays in place. S cells, four moves (left, down, right, up).
The rewards enter as factors, so that the bound of a guide π is its expected return and its entropy:

    ELBO = E_π[Σ_t γ^t r_t] / temperature − Σ_t E_π[KL(π(· | s_t) ‖ uniform)]
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

MAPS: dict[str, tuple[str, ...]] = {
    "lake": ("S...", ".H.H", "...H", "H..G"),
    "room": ("S..", "...", "..G"),
    "bridge": ("......", "S....G", "HHHHHH"),
}

MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))
"""(row, column) of left, down, right and up, in the order of Gym's FrozenLake."""

PAYS = {"G": 1.0, "H": -1.0}


class GridWorld(nn.Module):
    """T moves on a map: "a0" … ~ uniform over the four moves, and factors "r0" … of the discounted rewards.

    discount: γ. slip: the probability that a move goes to one of its two sides instead, half each; with it, sites
        "d0" … draw the direction, in the guide too. temperature: the weight of the policy's entropy beside the return.

    References:
        Reinforcement learning and control as probabilistic inference. S. Levine, 2018.
        Gymnasium: a standard interface for reinforcement learning environments. M. Towers et al., 2024 (the lake).
    """

    follows: Tensor
    pays: Tensor
    drift: Tensor

    def __init__(
        self,
        cells: Sequence[str],
        horizon: int = 12,
        discount: float = 0.95,
        slip: float = 0.0,
        temperature: float = 1.0,
    ):
        super().__init__()
        self.cells, self.horizon, self.discount = tuple(cells), horizon, discount
        self.slip, self.temperature = slip, temperature
        self.start = "".join(cells).index("S")
        follows, pays = dynamics(self.cells)
        self.register_buffer("follows", follows)  # (S, 4) the cell that a direction leads to
        self.register_buffer("pays", pays)  # (S, 4)
        sideways = torch.eye(4).roll(1, 1) + torch.eye(4).roll(-1, 1)
        self.register_buffer(
            "drift", (1 - slip) * torch.eye(4) + slip / 2 * sideways
        )  # (4, 4) direction given the move

    def forward(self) -> None:
        """The program."""
        cell = self.begin()
        for t in range(self.horizon):
            move = pyro.sample(f"a{t}", dist.Categorical(logits=self.pays.new_zeros(4)))
            direction = self.blown(t, move)
            pyro.factor(f"r{t}", self.discount**t * self.pays[cell, direction] / self.temperature)
            cell = self.follows[cell, direction]

    def begin(self) -> Tensor:
        """The first cell, ()."""
        return torch.full((), self.start, dtype=torch.long, device=self.pays.device)

    def blown(self, t: int, move: Tensor) -> Tensor:
        """The direction of a move: chance that no policy controls, so model and guide draw it from the same law."""
        return pyro.sample(f"d{t}", dist.Categorical(self.drift[move])) if self.slip else move


def dynamics(cells: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The next cell and the reward of each direction from each cell, (S, 4) each."""
    height, width = len(cells), len(cells[0])
    follows, pays = torch.zeros(height * width, 4, dtype=torch.long), torch.zeros(height * width, 4)
    for row in range(height):
        for column in range(width):
            for move, (down, right) in enumerate(MOVES):
                over = cells[row][column] in PAYS
                at = (min(max(row + down, 0), height - 1), min(max(column + right, 0), width - 1))
                to = (row, column) if over else at
                follows[row * width + column, move] = to[0] * width + to[1]
                pays[row * width + column, move] = 0.0 if over else PAYS.get(cells[to[0]][to[1]], 0.0)
    return follows, pays
