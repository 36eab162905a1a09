"""`Uses`: the methods of a trained pair of programs. A run directory and a loaded program inherit them.

    encode(x), reconstruct(x), impute(x, mask), log_likelihood(x), sample_posterior(x, draws), generate(n), export(dir)

x is what the programs are called with: an array (N, X), or a tuple (x, y) for programs with several arguments. It may
be a numpy array, a tensor, an xarray.DataArray or a DataFrame; the result has the same form. Draws come from a random
stream of their own, and no gradient is computed.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pathscore.diagnostics.arviz import draw_tree
from pathscore.diagnostics.layout import Layout, describe
from pathscore.errors import UsageError
from pathscore.evaluation import bounds, shared
from pathscore.evaluation.validation import evaluating
from pathscore.machine.streams import beside
from pathscore.svi import SVI
from pathscore.trained import encoding, exporting, generating, imputing
from pathscore.trained.forms import FORMS, chosen, in_form, tensor_of

Args = tuple[Tensor, ...]

PROBABLE = 200
"""Draws of the guide where a site's law depends on other draws."""


class Uses:
    """What can be done with a trained pair; subclasses say which pair it is.

    svi: it holds the parameters. pair: model and guide. example: some rows of data, whose other arguments (covariates)
    `generate` repeats; () where there are none.
    """

    svi: SVI

    @property
    def pair(self) -> tuple[Callable, Callable]:
        """Model and guide as they were written."""
        raise NotImplementedError

    @property
    def example(self) -> Args:
        """Rows of data that the programs accept."""
        raise NotImplementedError

    def accept(self, args: Args) -> Args:
        """The arguments of a call, checked. Raises UsageError in one line for data of another shape or kind."""
        return args

    def networks(self) -> dict[str, tuple[nn.Module, Tensor]]:
        """The parts that `export` writes: name → a module of tensors, and an example of its input."""
        raise UsageError("this program names no networks to export: call torch.export on your own modules")

    @property
    def model(self) -> Any:
        """The model with the trained parameters: `model(x)` inside a handler or outside."""
        return bound(self.svi, self.pair[0])

    @property
    def guide(self) -> Any:
        """The guide with the trained parameters."""
        return bound(self.svi, self.pair[1])

    def scope(self) -> AbstractContextManager[None]:
        """Run programs with the trained parameters: `with run.scope(): …`."""
        return self.svi.scope()

    def encode(self, x: Any, *, to: str | None = None, draws: int = PROBABLE, seed: int = 0) -> Any:
        """The guide's answer for each data point, by "site.part": "z1.mean" and "z1.scale", or "z1.probs".

        Where the law of a site depends on the draw of another (a second layer), its moments under the whole guide, from
        `draws` draws. to: "numpy", "torch" or "xarray"; the form of x if not given. Returns a dictionary of arrays, or
        an xarray.Dataset whose axes have the names of plates and events.
        """
        form, args = chosen(to, x), self._args(x)
        with self._quietly("encode", seed):
            values, dims = encoding.encode(*self.pair, args, at_least_one("draws", draws))
        return in_form(values, dims, form)

    def reconstruct(self, x: Any, *, draws: int = 20, seed: int = 0) -> Any:
        """E_q[E[x | z]] of each data point, an average over `draws` draws z ~ q(z | x): an array of the shape of x.

        A program with several observed sites gives a dictionary by site.
        """
        form, args = chosen(None, x), self._args(x)
        with self._quietly("reconstruct", seed):
            found = generating.reconstruct(*self.pair, args, at_least_one("draws", draws))
        return single(found, form)

    def generate(self, n: int = 1, *, mean: bool = False, to: str = "numpy", seed: int = 0) -> Any:
        """n draws x ~ p(x) of the model, (n, X); with `mean` E[x | z] at draws z of the prior instead.

        A program with covariates, or several observed sites, gives a dictionary by site; covariates are those of the
        example rows, repeated.
        """
        at_least_one("n", n)
        args = self._repeated(n)
        with self._quietly("generate", seed):
            found = generating.generate(*self.pair, args, mean)
        return single(found, chosen(to, None))

    def impute(
        self, x: Any, mask: Any = None, *, steps: int = 200, chains: int = 8, draws: bool = False, seed: int = 0
    ) -> Any:
        """x with its missing values filled in by E[x_m | x_o], their posterior mean under the model.

        mask: true where a value is missing, of the shape of x; if not given, where x is NaN. draws: return the chains'
        last draws of the missing values instead, (chains, N, X). Metropolis-within-Gibbs: see
        `pathscore.trained.imputing`. It is exact in the limit of many steps for any guide that covers the posterior.
        """
        form = chosen(None, x)
        first, *others = x if isinstance(x, tuple) else (x,)
        rows = tensor_of(first)
        missing = rows.isnan() if mask is None else mask_of(mask, rows)
        start = torch.where(missing, self._start(rows), rows)
        args = self._args((start, *others))
        if steps < 4:
            raise UsageError(f"steps={steps}: the chains need at least 4 steps")
        with self._quietly("impute", seed):
            settings = {"steps": steps, "chains": at_least_one("chains", chains)}
            means, drawn = imputing.impute(*self.pair, args, missing.reshape(args[0].shape), **settings)
        found, dims = (drawn, ("chain", "data", "x")) if draws else (means, ("data", "x"))
        back = found.reshape(*found.shape[:-1], *rows.shape[1:]).to(rows.dtype if rows.is_floating_point() else None)
        return FORMS[form](back, dims if back.dim() == len(dims) else [f"dim_{i}" for i in range(back.dim())])

    def log_likelihood(self, x: Any, *, particles: int = 1000, seed: int = 0) -> Any:
        """log p(x) of each data point in nats, (N,): the K-sample bound with K = `particles` draws of the guide.

        It is a lower bound in expectation, and tight for many particles. Programs whose data points share latent
        variables give the log predictive density, with those variables drawn from the guide.
        """
        form, args = chosen(None, x), self._args(x)
        at_least_one("particles", particles)
        with self._quietly("log_likelihood", seed):
            if self._layout(args).shared:
                found = shared.predictive_density(*self.pair, args, samples=particles, seed=seed)
            else:
                found = bounds.importance_bound(*self.pair, args, num_particles=particles, seed=seed, progress=False)
        return FORMS[form](found, ("data",))

    def sample_posterior(self, x: Any, draws: int = 1000, *, seed: int = 0, **options: Any) -> Any:
        """Draws of the guide in ArviZ's schema, an xarray.DataTree with groups posterior, sample_stats and others.

        options: as `pathscore.diagnostics.arviz.draw_tree`, such as path= for a file.
        """
        args = self._args(x)
        with self.scope(), evaluating(self.svi):
            return draw_tree(*self.pair, args, draws, seed=seed, **options)

    def export(self, directory: str | Path) -> list[Path]:
        """Write the networks, "encoder.pt2" and "decoder.pt2", by torch.export: files that load without Pathscore.

        encoder: x (N, X) → a dictionary as `encode` has it. decoder: z1 → E[x | z1], (N, X). N is free. Load one with
        `torch.export.load(path).module()`.
        """
        with self.scope(), evaluating(self.svi):
            return exporting.export(self.networks(), Path(directory))

    def _args(self, x: Any) -> Args:
        parts = x if isinstance(x, tuple) else (x,)
        like = self.example[0] if self.example else torch.zeros((), device=self.svi.device())
        tensors = [placed(tensor_of(part), like, first=i == 0) for i, part in enumerate(parts)]
        rows = {len(tensor) for tensor in tensors}
        if len(rows) > 1 or rows == {0}:
            raise UsageError(f"the arrays have {sorted(rows)} rows: give one for each data point, at least one")
        return self.accept(tuple(tensors))

    def _layout(self, args: Args) -> Layout:
        return describe(*self.pair, args)

    def _start(self, rows: Tensor) -> Tensor:
        """Values that the program accepts, to start from: those of the example's rows, else zeros."""
        if not self.example or self.example[0][:1].numel() != rows[:1].numel():
            return torch.zeros(1, dtype=rows.dtype)
        return repeated(self.example[0].cpu(), len(rows)).reshape(rows.shape).to(rows.dtype)

    def _repeated(self, n: int) -> Args:
        return tuple(repeated(tensor, n) for tensor in self.example)

    @contextmanager
    def _quietly(self, what: str, seed: int) -> Iterator[None]:
        """The trained parameters, evaluation mode, no gradient, and a random stream of its own."""
        with self.scope(), evaluating(self.svi), torch.no_grad(), beside(self.svi.device(), what, seed):
            yield
        self.svi.recorder.forget()


@dataclass(frozen=True, repr=False)
class Trained(Uses):
    """A program of your own with trained parameters, as `pathscore.load` returns it.

    svi: it can take further steps. rows: some rows of data, () if none were given.
    """

    svi: SVI
    rows: Args = ()

    def __repr__(self) -> str:
        return f"Trained({self.svi!r})"

    @property
    def pair(self) -> tuple[Callable, Callable]:
        return self.svi.model, self.svi.guide

    @property
    def example(self) -> Args:
        return self.rows


class Bound:
    """A program that runs with the parameters of an `SVI`; its attributes are the program's own."""

    def __init__(self, svi: SVI, program: Any) -> None:
        functools.update_wrapper(self, program, updated=())
        self._svi, self._program = svi, program

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._svi.scope():
            return self._program(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._program, name)


def bound(svi: SVI, program: Any) -> Any:
    """The program itself where it holds all of its parameters, else one that finds them in the store of `svi`."""
    if isinstance(program, nn.Module) and not any(isinstance(part, PyroModule) for part in program.modules()):
        return program
    return Bound(svi, program)


def placed(tensor: Tensor, like: Tensor, first: bool) -> Tensor:
    """On the device of `like`. Numbers with a point, and the first argument, get its type."""
    floating = tensor.is_floating_point() or (first and like.is_floating_point())
    return tensor.to(like.device, like.dtype if floating and like.is_floating_point() else tensor.dtype)


def repeated(tensor: Tensor, n: int) -> Tensor:
    """n rows, those of the tensor over and over."""
    return tensor[torch.arange(n, device=tensor.device) % len(tensor)]


def mask_of(mask: Any, x: Tensor) -> Tensor:
    """Where values are missing, as booleans of the shape of x. Raises UsageError for another shape or kind."""
    found = tensor_of(mask, "mask")
    if found.dtype != torch.bool and not ((found == 0) | (found == 1)).all():
        raise UsageError(f"mask holds {found.dtype} values: give booleans, true where a value is missing")
    if found.shape != x.shape:
        raise UsageError(f"mask has shape {tuple(found.shape)}, and x {tuple(x.shape)}: give one boolean per value")
    return found.bool()


def single(found: generating.Sites, form: str) -> Any:
    """The array of the one observed site, or a dictionary by site."""
    arrays = {name: FORMS[form](value, dims) for name, (value, dims) in found.items()}
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def at_least_one(name: str, value: int) -> int:
    """The value. Raises UsageError below 1."""
    if value < 1:
        raise UsageError(f"{name}={value}: ask for at least one")
    return value
