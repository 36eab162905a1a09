"""What a kind of program is to the rest of the house: `Program(make, …)`, an entry of `MODELS` or of your own file.

    make(data, options) -> (model, guide)

is all that an entry must say; every other field has a default that suits a program whose latent variables belong to
the data points. `data` is a `pathscore.data.Dataset`, `options` an instance of the entry's dataclass of options. Model
and guide are called with the tensors that `takes` names, in that order: `model(x)`, or `model(x, y)` with labels.
Nothing here imports torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HOLDS = ("rows", "counts", "sequences", "labels")
"""What a data set can hold: rows of numbers x (N, X), rows of counts, sequences x (N, T, X) with their lengths (N,),
and labels y (N,) of the rows."""


@dataclass(frozen=True)
class NoOptions:
    """The program"""


def nothing(*_: Any) -> dict[str, Any]:
    """No figures, no pictures, no defaults of its own."""
    return {}


@dataclass(frozen=True)
class Program:
    """One kind of program.

    make: (data, options) -> (model, guide), two Pyro programs. Initial weights are drawn from torch's global generator.
    doc: one line that says what it is.
    options: a frozen dataclass; each field is made with `pathscore.config.option` and is a flag of its own.
    takes: members of `HOLDS`, the arguments of a call; () for a program that needs no data.
    dataset: the set it trains on where none is named.
    whole: whether a step estimates the bound of the whole data set, as with a latent variable that all data share: its
        plate is then as long as the data set, and the batch a subsample. Otherwise the bound is a sum over the rows of
        the batch.
    settle: (options, data, summed) -> values for options that are "auto" (None), those of the run among them.
        summed: whether the objective sums discrete latent variables out.
    check: (options, data, binarize) refuses data that the program cannot score, with a `DataError`.
    layers: options -> the latent layers, each with `reparameterised` and `states`, from which the legality of an
        objective is known without data; None to find them by running the guide.
    title: options -> a few words that tell one program of this kind from another.
    kept: (options, width) -> numbers a step keeps in memory for each row of `width` values, at the least.
    measures: (model, guide, args, options) -> figures on the held-out data, beside the bounds. args: those of a call.
    reference: (model, guide, args, options) -> exact figures by name, for example {"log_likelihood": mean in nats}.
    pictures: (model, guide, args, data, options) -> matplotlib figures by name. They show the held-out data.
    columns: () -> columns of the legality tables: name -> (options by name, a distribution of such a latent site).
    by: the option that the columns are values of.
    tables: () -> tables of choices for `pathscore list`: flag -> name -> meaning.
    """

    make: Callable[[Any, Any], tuple[Callable, Callable]]
    doc: str = ""
    options: type = NoOptions
    takes: Sequence[str] = ("rows",)
    dataset: str = "digits"
    whole: bool = False
    settle: Callable[[Any, Any, bool], Mapping[str, Any]] = nothing
    check: Callable[[Any, Any, str], Any] = nothing
    layers: Callable[[Any], Sequence[Any]] | None = None
    title: Callable[[Any], str] = lambda options: ""
    kept: Callable[[Any, int], int] = lambda options, width: 2 * width
    measures: Callable[[Any, Any, tuple, Any], Mapping[str, float]] = nothing
    reference: Callable[[Any, Any, tuple, Any], Mapping[str, float]] = nothing
    pictures: Callable[[Any, Any, tuple, Any, Any], Mapping[str, Any]] = nothing
    columns: Callable[[], Mapping[str, tuple[Mapping[str, Any], Any]]] = nothing
    by: str = ""
    tables: Callable[[], Mapping[str, Mapping[str, str]]] = nothing


@dataclass(frozen=True)
class Listed:
    """An entry of `MODELS`: its line in the help, and where its `Program` is, as "module:NAME"."""

    doc: str
    where: str

    def load(self) -> Program:
        """The entry itself, imported now."""
        module, _, name = self.where.partition(":")
        return getattr(importlib.import_module(module), name)
