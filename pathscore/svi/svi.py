"""Stochastic variational inference with one fused optimiser: `SVI(model, guide, optim, loss).step(*args) -> float`.

Drop-in for `pyro.infer.SVI` with any Pyro program and any Pyro ELBO. Every object keeps its parameters in a store of
its own, so two runs in one process never train each other's, and shows them in Pyro's global store; a step with a
non-finite loss or gradient is refused before the optimiser moves; and the first step names every parameter that no
gradient reaches.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pyro
import pyro.infer
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from torch import Tensor, nn

from pathscore.compiling.compiled_elbo import CompiledELBO
from pathscore.elbos import as_elbo
from pathscore.elbos.site import SiteELBO
from pathscore.errors import NumericsError, PathscoreError, UsageError, in_short
from pathscore.machine.foreach import gradient_norm, scale_gradients
from pathscore.machine.heap import keep_freed_memory
from pathscore.machine.streams import beside
from pathscore.programs.recorder import plain_name
from pathscore.programs.untouched import untouched
from pathscore.svi.compiled_step import compiled_step
from pathscore.svi.complaints import explain, of_arguments
from pathscore.svi.first_step import check, check_match
from pathscore.svi.joint_optim import JointOptim
from pathscore.svi.numerics import blame, finite, kind_of
from pathscore.svi.optimiser import as_optim
from pathscore.svi.parameters import Parameters
from pathscore.svi.state import fits, restore, state_of

PYROS = (Trace_ELBO, TraceGraph_ELBO, TraceEnum_ELBO, RenyiELBO)
"""Pyro's objectives that take one draw of the guide and run the model against it."""

VALIDATE = ("first", "always", "never")


class SVI(pyro.infer.SVI):
    """Stochastic variational inference: min E_q[log q(z | x) − log p(x, z)] over the parameters of model and guide.

    model, guide: Pyro programs called with the arguments of `step`: functions, modules, PyroModules, autoguides.
    optim: `OptimizerSpec`, "adam" or "adam(lr=0.03)", a torch optimiser class or factory, or a `PyroOptim`. Parameters
        are those the programs register (`pyro.param`, `pyro.module`), whenever they first do, plus those of
        `loss.estimators` when the objective has such a module.
    loss: a Pyro ELBO, or anything else that `pyro.infer.SVI` takes; its name, as in "trace" or "iwae(num_particles=5)";
        a `CompiledELBO` to run as a compiled graph.
    per_datum: divide loss and gradient by `len(args[0])`, so that rates do not depend on the batch size.
    validate: when Pyro's validation runs (if it is on at all): "first" step, "always" or "never". It costs a fifth of
        a small model's step. No setting is left changed.
    require_gradients: refuse a first step that leaves a parameter without gradient.
    publish: show the parameters in Pyro's global store too, under their names, after each step. `pyro.param("loc")`,
        `Predictive(model, guide=guide)` and an autoguide's `median()` then give trained values, as after
        `pyro.infer.SVI`. Of two runs with one name, the store shows the one that took the latest step; each trains
        and evaluates its own. `with svi.scope():` shows this run's. A run never starts from what the store holds.

    Raises: UsageError for a program with nothing to train, or parameters that no gradient reaches; NumericsError for a
    loss or gradient that is not finite, with parameters and optimiser as they were before the step.
    """

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        optim: Any = None,
        loss: Any = None,
        *,
        per_datum: bool = False,
        validate: str = "first",
        require_gradients: bool = True,
        publish: bool = True,
    ):
        if validate not in VALIDATE:
            raise UsageError(f"validate must be one of {', '.join(VALIDATE)}, got {validate!r}")
        self.compiled = loss if isinstance(loss, CompiledELBO) else None
        if self.compiled is not None:
            loss = self.compiled.elbo  # what the first step runs, and every step that has no graph
        for side, program in (("model", model), ("guide", guide)):
            if not callable(program):
                raise UsageError(f"{side} is a {type(program).__name__}: give a Pyro program, a function or a module")
        self.elbo = pyro.infer.Trace_ELBO(max_plate_nesting=1) if loss is None else as_elbo(loss)
        super().__init__(model, guide, as_optim(optim), self.elbo)
        self.per_datum = per_datum
        self.validate = validate
        self.require_gradients = require_gradients
        self.publish = publish
        self.steps = 0
        self.gradient_norm = float("nan")
        self._own = Parameters(model, guide, lambda: getattr(self.elbo, "estimators", None))
        self.recorder = self._own.recorder
        self._first = True
        self._loose: list[tuple[str, Tensor]] = []  # parameters that the optimiser does not hold
        self._changes = -1  # of the recorder, when they were listed

    def __repr__(self) -> str:
        programs = ", ".join(f"{side}={name_of(part)}" for side, part in (("model", self.model), ("guide", self.guide)))
        compiled = ", compiled" if self.compiled is not None else ""
        return f"SVI({programs}, {shown(self.elbo)}{compiled}, {self.steps} steps taken)"

    def scope(self) -> AbstractContextManager[None]:
        """Run programs with this object's parameters: `with svi.scope(): guide(x)`. Nests freely."""
        return self._own.scope()

    def step(self, *args, **kwargs) -> Any:
        """One gradient step.

        Returns: the loss as a number (a tuple for objectives with several losses), divided by the batch size under
        `per_datum`.
        """
        if self.compiled is not None and not self._first:
            if self.compiled.awaits(self.model, self.guide, args, kwargs):
                self._rehearse_untouched(args, kwargs)
            found = compiled_step(self._own, self.compiled, self.optim, args, kwargs, self._scale(args))
            if found is not None:
                loss, self.gradient_norm = found
                return self._stepped(loss, args)
        if self._first:
            self.begin(args, kwargs)
        with self.scope():
            self.recorder.watching = True
            try:
                loss = self._gradients(*args, **kwargs)
                self.adopt()
                self._advance(loss, self._scale(args))
            finally:
                self._own.drop_gradients()
        return self._stepped(loss, args)

    def _stepped(self, loss: Any, args: tuple) -> Any:
        """Count the step, and let programs outside see its parameters."""
        self.steps += 1
        self._first = False
        if self.publish:
            self._own.publish()
        return self._scaled(loss, args)

    def evaluate_loss(self, *args, **kwargs) -> Any:
        """The loss without a step, scaled as `step` scales it. Consumes random numbers as the programs do."""
        with self.scope(), torch.no_grad():
            loss = self.loss(self.model, self.guide, *args, **kwargs)
            self.recorder.forget()
        return self._scaled(_numbers(loss), args)

    def parameters(self) -> dict[str, Tensor]:
        """Every parameter met so far, unconstrained, by its name in the program; estimators' as "estimators.…"."""
        return self._own.named()

    def modules(self) -> dict[str, nn.Module]:
        """The modules whose state belongs to this run: "model", "guide", "estimators", where there are such."""
        return self._own.modules()

    def device(self) -> torch.device:
        """Where the first parameter lives; the CPU before there is one."""
        return self._own.device()

    def state_dict(self) -> dict[str, Any]:
        """Parameters, buffers, optimiser and steps as tensors and plain values, for `torch.save`.

        The tensors are the live ones, as in torch: copy them to keep a state while training goes on.

        Raises: UsageError under a foreign `PyroOptim`, whose state is kept per tensor.
        """
        self._own.reclaim()
        graphs = {"graphs": self.compiled.met()} if self.compiled is not None else {}
        return {"steps": self.steps, **graphs, **state_of(self._own, self.optim)}

    def load_state_dict(self, state: dict[str, Any], *args) -> None:
        """Continue from `state_dict`; nothing is changed when it does not fit.

        args: an example batch. Programs that make parameters when they first run (autoguides, `pyro.param`, some
            estimators) are run with it once, beside the random stream, before the values are put in place.

        Raises: UsageError naming what is missing, unexpected or of another shape.
        """
        if args and (self.compiled is not None or not fits(self._own, state)):
            self._rehearse(args, {})
        restore(self._own, self.optim, state)
        if self.compiled is not None:
            self.compiled.expected = set(state.get("graphs", ()))
        self.resume(int(state["steps"]), args)
        if self.publish:
            self._own.publish()

    def resume(self, steps: int, args: tuple) -> None:
        """Stand where a run stood after so many steps; `args`: a batch of the shape that its first step had, or ()."""
        self.steps = steps
        if self.compiled is not None and args and steps > 0:
            # Not a first step, which runs eagerly: the next one is compiled, as without the interruption.
            self.begin(args, {})
            self._first = False

    def _rehearse_untouched(self, args: tuple, kwargs: dict) -> None:
        """Make what the programs and the objective make in such a call; all that they keep stays as it is."""
        learned = getattr(self.elbo, "estimators", None)
        before = {name: value.clone() for name, value in learned.state_dict().items()} if learned is not None else {}
        with untouched(self.model, self.guide):
            self._rehearse(args, kwargs)
        if learned is not None:
            learned.load_state_dict(before)
        self.begin(args, kwargs)

    def _rehearse(self, args: tuple, kwargs: dict) -> None:
        """One pass of the programs, which makes their parameters; no optimiser step, and the random stream stays."""
        try:
            with self.scope(), beside(self.device()), pyro.validation_enabled(False):
                self.loss_and_grads(self.model, self.guide, *args, **kwargs)
                self.adopt()
        finally:
            self._own.drop_gradients()

    def _gradients(self, *args, **kwargs) -> Any:
        try:
            with self._validation():
                return _numbers(self.loss_and_grads(*self._programs(), *args, **kwargs))
        except PathscoreError:
            raise
        except NotImplementedError as problem:
            what = in_short(problem)
            raise UsageError(
                f"{type(self.elbo).__name__} cannot take this program: {what}: use make_elbo('trace')"
            ) from problem
        except KeyError:
            check_match(self._own, self.elbo)  # Pyro looks the guide's site up, and says no more than its name
            raise
        except (TypeError, AttributeError, RuntimeError) as problem:
            better = of_arguments(problem, args, self.parameters().values()) if self._first else None
            if better is None:
                raise
            raise better from problem
        except (ValueError, UserWarning) as problem:
            # Pyro's validation and warnings notice NaN too, but name neither site nor step.
            cause = blame(self.recorder)
            if cause is None:
                better = explain(problem)
                if better is None:
                    raise
                raise better from problem
            raise NumericsError(f"step {self.steps + 1}: the loss is not finite{cause}") from problem

    def _programs(self) -> tuple[Callable, Callable]:
        """Model and guide; in the first step of one of Pyro's objectives with their sites noted apart."""
        if not self._first or not isinstance(self.elbo, PYROS) or isinstance(self.elbo, SiteELBO):
            return self.model, self.guide
        return self.recorder.on_side("model", self.model), self.recorder.on_side("guide", self.guide)

    def _validation(self) -> AbstractContextManager:
        if self.validate == "never" or (self.validate == "first" and not self._first):
            return pyro.validation_enabled(False)
        return without_match_warnings()

    def begin(self, args: tuple, kwargs: dict) -> None:
        """Prepare for steps on arguments of these shapes."""
        keep_freed_memory()
        if self.compiled is not None:
            self.compiled.meet(self.model, self.guide, args, kwargs)

    def adopt(self) -> None:
        """Let the optimiser hold every parameter that has a gradient now."""
        if not isinstance(self.optim, JointOptim):
            return
        optim = self.optim
        if self._first or self._changes != self.recorder.changes:
            self._loose, self._changes = list(self.parameters().items()), self.recorder.changes
        found = [(n, p) for n, p in self._loose if p.grad is not None]
        if found:
            optim.adopt([pair for pair in found if not pair[0].startswith("estimators.")])
            optim.adopt([pair for pair in found if pair[0].startswith("estimators.")], estimator=True)
            self._loose = [(n, p) for n, p in self._loose if not optim.holds(p)]

    def _advance(self, loss: Any, scale: float) -> None:
        if self._first:
            check(self._own, self.elbo, self.require_gradients and self.steps == 0)
        if not all(math.isfinite(part) for part in (loss if isinstance(loss, tuple) else (loss,))):
            raise NumericsError(f"step {self.steps + 1}: the loss is {loss}{blame(self.recorder) or ''}")
        trained = [p for p in self._trained() if p.grad is not None]
        gradients: list[Any] = [p.grad for p in trained]
        norm = gradient_norm(gradients)
        if not math.isfinite(norm):
            raise NumericsError(f"step {self.steps + 1}: {self._bad_gradients()}")
        self.gradient_norm = norm * scale
        if isinstance(self.optim, JointOptim):
            self.optim.update(trained, gradients, self.gradient_norm, scale)
        else:
            scale_gradients(gradients, scale)
            self.optim(trained)

    def _trained(self) -> list[Tensor]:
        # In the optimiser's order, by name: the norm is summed alike whenever, and however late, a parameter joined.
        adopted = isinstance(self.optim, JointOptim) and self.optim.torch_optim is not None
        # `adopted` implies that the optimiser is a JointOptim.
        return list(self.optim.parameters() if adopted else self.parameters().values())  # type: ignore[union-attr]

    def _bad_gradients(self) -> str:
        bad = [(n, p.grad) for n, p in self.parameters().items() if p.grad is not None and not finite(p.grad)]
        if not bad:
            return "the norm of the gradient overflows"
        names = ", ".join(plain_name(name) for name, _ in bad[:3])
        return f"the gradient of {names} is {kind_of(bad[0][1])} (the loss is finite){blame(self.recorder) or ''}"

    def _scale(self, args: tuple) -> float:
        return 1.0 / len(args[0]) if self.per_datum else 1.0

    def _scaled(self, loss: Any, args: tuple) -> Any:
        if not self.per_datum:
            return loss
        count = len(args[0])
        return type(loss)(part / count for part in loss) if isinstance(loss, tuple) else loss / count


@contextmanager
def without_match_warnings() -> Iterator[None]:
    """Keep Pyro from warning of sites that `check_match` refuses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found (non-auxiliary )?vars in", UserWarning)
        yield


def _numbers(loss: Any) -> Any:
    if isinstance(loss, tuple):
        return type(loss)(_numbers(part) for part in loss)
    return float(loss.detach() if isinstance(loss, Tensor) else loss)


def name_of(program: Any) -> str:
    """A program's name, as it appears in a `repr`."""
    return getattr(program, "__name__", type(program).__name__)


def shown(elbo: Any) -> str:
    """An objective as a `repr` shows it: Pyro's own classes by their names."""
    return type(elbo).__name__ if type(elbo).__repr__ is object.__repr__ else repr(elbo)
