"""Pictures of policies: each a function from tensors to a matplotlib Figure."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from models.gridworld import MOVES
from pathscore.diagnostics.palette import LIGHT, panels

SHOWN = 20
"""Bandits in a picture."""


def bandit_policy(values: Tensor, probs: Tensor) -> Figure:
    """Values of the arms (N, A), and the probabilities of a policy (N, A), of the first bandits."""
    figure, axes = panels(LIGHT, 1, 2, (8.0, 0.16 * min(SHOWN, len(values)) + 1.4))
    for ax, table, title in zip(axes, (values, probs), ("value of each arm", "policy"), strict=True):
        image = ax.imshow(table[:SHOWN].cpu().numpy(), cmap="Greys", aspect="auto")
        ax.set(title=title, xlabel="arm", ylabel="bandit" if ax is axes[0] else "")
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(image, ax=ax)
    return figure


def grid_policy(cells: Sequence[str], probs: Tensor, visited: Tensor) -> Figure:
    """Arrows as long as the probability of their move (S, 4); cells as dark as the chance (S,) of being visited."""
    height, width = len(cells), len(cells[0])
    figure, (ax,) = panels(LIGHT, 1, 1, (1.0 * width + 1.2, 1.0 * height + 0.6))
    ax.imshow(visited.reshape(height, width).cpu().numpy(), cmap="Blues", vmin=0, vmax=2)  # 2: arrows stay visible
    for row in range(height):
        for column in range(width):
            _cell(ax, row, column, cells[row][column], probs[row * width + column].tolist())
    ax.set(xticks=[], yticks=[], title="probability of each move; blue: cells that are visited")
    return figure


def _cell(ax: Any, row: int, column: int, kind: str, probs: list[float]) -> None:
    """The letter of a cell, and arrows where the walk goes on."""
    if kind != ".":
        ax.text(column - 0.36, row - 0.36, kind, ha="center", va="center", fontsize=12, color=LIGHT.text)
    if kind in "GH":
        return
    for (down, right), p in zip(MOVES, probs, strict=True):
        if p > 0.02:
            ax.annotate(
                "",
                (column + 0.46 * p * right, row + 0.46 * p * down),
                (column, row),
                arrowprops={"arrowstyle": "-|>", "color": LIGHT.main, "shrinkA": 0, "shrinkB": 0},
            )
