"""A kind of program for the command line: `Program(make, …)`, an entry of `MODELS` or of your own file.

    make(data, options) -> (model, guide)

is the only required field. The defaults of the other fields suit a program whose latent variables belong to the data
points. `data` is a `pathscore.data.Dataset`, `options` an instance of the entry's dataclass of options. Model and guide
are called with the tensors that `takes` names, in that order: `model(x)`, or `model(x, y)` with labels. Nothing here
imports torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HOLDS = ("rows", "counts", "sequences", "labels")
"""What a data set can contain: rows of numbers x (N, X), rows of counts, sequences x (N, T, X) with their lengths (N,),
and labels y (N,) of the rows."""


@dataclass(frozen=True)
class NoOptions:
    """The program"""


def nothing(*_: Any) -> dict[str, Any]:
    """The default of optional fields: no figures, no pictures, no defaults."""
    return {}


@dataclass(frozen=True)
class Program:
    """One kind of program.

    make: (data, options) -> (model, guide), two Pyro programs. Initial weights are drawn from torch's global generator.
    doc: one line of description.
    options: a frozen dataclass; each field is made with `pathscore.config.option` and becomes a flag.
    takes: members of `HOLDS`, the arguments of a call; () for a program that needs no data.
    dataset: the data set that is used when none is named.
    whole: whether a step estimates the bound of the whole data set, as with a latent variable that all data points
        share. The plate is then as long as the data set, and the batch is a subsample. Otherwise the bound is a sum
        over the rows of the batch.
    settle: (options, data, summed) -> values for options that are "auto" (None), also for those of the run.
        summed: whether the objective sums discrete latent variables out.
    check: (options, data, binarize) raises a `DataError` for data that the program has no density for.
    layers: options -> the latent layers, each with `reparameterised` and `states`. They tell without data which
        objectives are legal. None: the guide is run to find them.
    title: options -> a few words that distinguish programs of this kind.
    kept: (options, width) -> the least number of values that a step keeps in memory for each row of `width` values.
    measures: (model, guide, args, options) -> figures on the held-out data in addition to the bounds. args: the
        arguments of a call.
    watched: (model, guide, options) -> figures that are followed during training: every line of metrics.jsonl with the
        learning rate holds them, and watched.png shows them. They are cheap, and draw no random numbers.
    reference: (model, guide, args, options) -> exact figures by name, for example {"log_likelihood": mean in nats}.
    floor: (training args, held-out args, options) -> by name, the mean log-likelihood in nats of the held-out data
        under a model without latent variables: a run below it has learned nothing.
    pictures: (model, guide, args, data, options) -> matplotlib figures of the held-out data by name.
    networks: (model, guide) -> what `run.export` writes: name -> (a module of one tensor, an example of two rows).
    columns: () -> columns of the legality tables: name -> (options by name, a distribution of such a latent site).
    by: the option whose values are the columns.
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
    watched: Callable[[Any, Any, Any], Mapping[str, float]] = nothing
    reference: Callable[[Any, Any, tuple, Any], Mapping[str, float]] = nothing
    floor: Callable[[tuple, tuple, Any], Mapping[str, float]] = nothing
    pictures: Callable[[Any, Any, tuple, Any, Any], Mapping[str, Any]] = nothing
    networks: Callable[[Any, Any], Mapping[str, tuple[Any, Any]]] = nothing
    columns: Callable[[], Mapping[str, tuple[Mapping[str, Any], Any]]] = nothing
    by: str = ""
    tables: Callable[[], Mapping[str, Mapping[str, str]]] = nothing


@dataclass(frozen=True)
class Listed:
    """An entry of `MODELS`: its line in the help, and the place of its `Program` as "module:NAME"."""

    doc: str
    where: str

    def load(self) -> Program:
        """Import the `Program`."""
        module, _, name = self.where.partition(":")
        return getattr(importlib.import_module(module), name)


def first_sentence(cls: Any) -> str:
    """The first sentence of the docstring of a class or a function, without its full stop."""
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".")
