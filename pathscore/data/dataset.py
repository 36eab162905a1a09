"""A data set in memory: `Dataset.arguments(takes) -> the tensors of a call`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pathscore.errors import DataError

Arguments = tuple[Tensor, ...]
"""The tensors of one call of a program, with the data points along the first axis; () for a program without data."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    kind: "binary" (all 0 or 1), "unit" (in [0, 1]), "count" (0, 1, 2, …) or "real".
    x: (N, X) float32, or (N, T, X) for sequences; x_test: the same for N' held-out rows.
    labels, labels_test: (N,), (N',), int64 for classes and float32 for numbers, or None.
    lengths, lengths_test: (N,), (N',) int64, the number of valid steps of each sequence; None for other data.
    shape: (C, H, W) of an image, (X,) of a row, (T, X) of a sequence.
    """

    name: str
    kind: str
    x: Tensor
    x_test: Tensor
    labels: Tensor | None
    labels_test: Tensor | None
    shape: tuple[int, ...]
    lengths: Tensor | None = None
    lengths_test: Tensor | None = None

    @property
    def holds(self) -> tuple[str, ...]:
        """What it contains, as members of `pathscore.programs.entry.HOLDS`."""
        rows = "sequences" if self.lengths is not None else "counts" if self.kind == "count" else "rows"
        return (rows, "labels") if self.labels is not None else (rows,)

    def arguments(self, takes: Sequence[str], test: bool = False) -> Arguments:
        """The tensors that a program takes, for the training rows or the held-out rows."""
        given = {
            "rows": (self.x_test if test else self.x,),
            "labels": (self.labels_test if test else self.labels,),
        }
        lengths = self.lengths_test if test else self.lengths
        given |= {"counts": given["rows"], "sequences": (*given["rows"], lengths)}
        return tuple(tensor for name in takes for tensor in given[name] if tensor is not None)


NOTHING = Dataset("no data", "real", torch.zeros(0, 0), torch.zeros(0, 0), None, None, (0,))
"""The data set of a program that takes no data."""


def refuse_other(dataset: Dataset, takes: Sequence[str], model: str) -> None:
    """Raise DataError unless the data set holds what a program takes.

    A program that takes rows accepts counts too, because counts are numbers.
    """
    holds = (*dataset.holds, *(["rows"] if "counts" in dataset.holds else []))
    lacking = [name for name in takes if name not in holds]
    if lacking:
        raise DataError(
            f"--model {model} takes {' and '.join(takes)}, and {dataset.name} holds {' and '.join(dataset.holds)}: "
            f"{REMEDIES[lacking[0]]}"
        )


REMEDIES = {
    "rows": "give rows of numbers, an array x (N, X)",
    "labels": "add an array y with a label for each row, and y_test if there is x_test",
    "counts": "give an array x of whole numbers from 0 upwards",
    "sequences": "give an array x (N, T, X) and the lengths of its sequences, an array lengths (N,)",
}
