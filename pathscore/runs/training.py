"""The training loop: `fit(svi, x, Training(…), run_dir=…) -> Fitted`, for data x (N, X).

A step is a pure function of the state that a checkpoint holds: parameters, optimiser, torch's random streams and the
position in the epoch. A resumed run therefore continues bit for bit. Only the programs draw from torch's streams.
Metrics, validation and checkpoints do not change the result.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from pathscore.data import Arguments
from pathscore.data.batches import Batches
from pathscore.data.epochs import binarize
from pathscore.elbos.kl_weight import KLWeight
from pathscore.errors import NumericsError, RunDirError, UsageError
from pathscore.evaluation.validation import validate
from pathscore.machine import streams
from pathscore.machine.signals import Interrupted, Wish, caught
from pathscore.runs import checkpoint
from pathscore.runs.metrics import Metrics
from pathscore.runs.records import Fitted, Position, Training
from pathscore.svi import SVI
from pathscore.svi.joint_optim import JointOptim

METRICS = "metrics.jsonl"

__all__ = ["METRICS", "Fitted", "Loop", "Position", "Training", "fit"]


def fit(
    svi: SVI,
    x: Tensor | Arguments,
    training: Training,
    *,
    run_dir: Path | None = None,
    x_valid: Tensor | Arguments | None = None,
    kl_weight: KLWeight | None = None,
    config: dict[str, Any] | None = None,
    resume: bool = False,
    probe: Callable[[], dict[str, Any]] | None = None,
    watch: Callable[[], Mapping[str, float]] | None = None,
) -> Fitted:
    """Train `svi` on the rows of x (N, X), validating after each epoch on x_valid if given.

    x, x_valid: a tensor, or the tuple of tensors that the programs are called with, for example (x, y); () for programs
        without arguments. `training.binarize` applies to the first tensor of a tuple.
    run_dir: the directory of metrics and checkpoints; without it none are written. The caller has `checkpoint.lock`.
    kl_weight: the weight that model and guide were wrapped with (`kl_weighted`); it is updated at each step.
    config: plain values that are kept in the checkpoint. A resumed run must have the same values, except `config.FREE`.
    resume: continue from the checkpoint in `run_dir`.
    probe: called after each epoch; its result is added to that line of the metrics. It must not change the random
        streams or the run's parameters.
    watch: figures by name for the lines of metrics that are written as training goes, under the same conditions.

    Raises: NumericsError for a loss or gradient that is not finite; RunDirError for a run directory that cannot be
    read, written or resumed; Interrupted after SIGINT or SIGTERM, once the state has been saved.
    """
    loop = Loop(svi, x, training, run_dir, kl_weight or KLWeight(), config or {})
    loop.probe, loop.watch = probe, watch
    if x_valid is not None:
        first, *others = as_arguments(x_valid)
        mode = "static" if training.binarize == "dynamic" else training.binarize
        loop.x_valid = (binarize(first, mode), *others)
    if resume:
        loop.resume()
    return loop.run()


def as_arguments(x: Tensor | Arguments) -> Arguments:
    """One tensor as the tuple of a call's arguments.

    Raises: UsageError for anything but tensors with the same first axis.
    """
    data = (x,) if isinstance(x, Tensor) else x
    if not isinstance(data, tuple) or not all(isinstance(part, Tensor) for part in data):
        parts = data if isinstance(data, tuple) else (data,)
        kinds = ", ".join(dict.fromkeys(type(part).__name__ for part in parts))
        raise UsageError(
            f"fit takes a tensor or a tuple of tensors, got {kinds}: convert it, as with torch.as_tensor(x, "
            "dtype=torch.float32); for batches of a DataLoader call svi.step(batch) yourself"
        )
    if len({len(part) for part in data}) > 1:
        raise UsageError(f"fit takes tensors with one row for each data point, got {[len(part) for part in data]} rows")
    return data


class Loop:
    """The training loop of one run: its position, and what a step, the end of an epoch and a checkpoint need."""

    def __init__(
        self,
        svi: SVI,
        x: Tensor | Arguments,
        training: Training,
        run_dir: Path | None,
        kl_weight: KLWeight,
        config: dict[str, Any],
    ):
        if not isinstance(training, Training):
            raise UsageError(f"training is {training!r}: give Training(epochs=10) or Training(steps=1000)")
        self.svi, self.training, self.run_dir, self.kl_weight, self.config = svi, training, run_dir, kl_weight, config
        data = as_arguments(x)
        self.batches = Batches(data, training.batch_size, training.seed, training.binarize)
        self.total = training.steps or (training.epochs or 0) * len(self.batches)
        self.device = data[0].device if data else svi.device()
        self.x_valid: Arguments | None = None
        self.probe: Callable[[], dict[str, Any]] | None = None
        self.watch: Callable[[], Mapping[str, float]] | None = None
        self.at = Position()
        self.note: str | None = None
        self.resumed_from = 0

    def resume(self) -> None:
        """Load the state of the newest good checkpoint of the run directory."""
        if self.run_dir is None:
            raise UsageError("resume needs run_dir, the directory of the run to continue")
        loaded = checkpoint.load(self.run_dir)
        checkpoint.require_same_config(loaded, self.config)
        self.at = Position(**loaded.payload["position"])
        try:
            self.svi.load_state_dict(loaded.payload["svi"], *next(self.batches.rest(self.at.epoch)))
        except UsageError as error:
            raise RunDirError(f"{loaded.path}: {error}") from None
        streams.write(loaded.payload["rng"], self.device)
        self.resumed_from, self.note = self.at.step, loaded.note

    def run(self) -> Fitted:
        """Train from the present position to the end."""
        self._mark, self._before = time.perf_counter(), self.at.seconds
        self._saved, started = (self.at.step, time.monotonic()), (self.at.step, self.at.closed)
        with ExitStack() as stack:
            path = self.run_dir / METRICS if self.run_dir else None
            self.metrics = stack.enter_context(closing(Metrics(path, self.at.lines)))
            self.bar = stack.enter_context(self._progress())
            wish = stack.enter_context(caught())
            while self.at.step < self.total or not self.at.closed:
                self._epoch(wish)
        if (self.at.step, self.at.closed) != started:
            self.save()
        return self._fitted()

    def save(self) -> Path | None:
        """Write a checkpoint now, if there is a run directory."""
        if self.run_dir is None:
            return None
        state = {"svi": self.svi.state_dict(), "rng": streams.read(self.device), "position": vars(self.at)}
        path = checkpoint.save(self.run_dir, {"config": self.config, **state})
        self._saved, self._mark = (self.at.step, time.monotonic()), time.perf_counter()
        return path

    def _epoch(self, wish: Wish) -> None:
        for batch in self.batches.rest(self.at.epoch, self.at.batch):
            if self.at.step >= self.total:
                break
            self._step(batch)
            self._save_if_due(wish)
        self._end_epoch()

    def _step(self, batch: Arguments) -> None:
        at = self.at
        self.kl_weight.advance(at.step)
        try:
            loss = self.svi.step(*batch)
        except NumericsError as error:
            raise NumericsError(f"{error}{self._last_good()}") from error.__cause__
        loss = loss[0] if isinstance(loss, tuple) else loss
        rows = len(batch[0]) if batch and not self.training.whole else 1
        at.step, at.batch, at.rows, at.closed = at.step + 1, at.batch + 1, at.rows + rows, False
        at.loss += loss * rows if self.svi.per_datum else loss
        at.train_elbo = -at.loss / at.rows
        at.square, at.norms = at.square + self.svi.gradient_norm**2, at.norms + 1
        now = time.perf_counter()
        at.seconds, self._mark = at.seconds + now - self._mark, now
        self.bar.update()
        if at.step % self.training.log_steps == 0 or at.step == self.total:
            self._log()

    def _log(self) -> None:
        self._show()
        at, watched = self.at, dict(self.watch()) if self.watch else {}
        self._write(
            **({"watched": watched} if watched else {}),
            gradient_norm=self.svi.gradient_norm,
            gradient_rms=math.sqrt(at.square / at.norms),
            lr=self.svi.optim.rate() if isinstance(self.svi.optim, JointOptim) else None,
            kl_weight=self.kl_weight.value,
        )
        at.square, at.norms = 0.0, 0

    def _end_epoch(self) -> None:
        at, found = self.at, {}
        if self.x_valid is not None:
            found = validate(self.svi, self.x_valid, seed=self.training.seed + at.epoch)
            at.valid_elbo = found["valid_elbo"]
        if self.probe is not None:
            found |= self.probe()
        self._show()
        self._write(epoch_end=at.batch == len(self.batches), **found)
        if at.batch == len(self.batches):
            at.epoch, at.batch, at.loss, at.rows = at.epoch + 1, 0, 0.0, 0
        at.closed = True
        self._mark = time.perf_counter()

    def _write(self, **values: Any) -> None:
        at = self.at
        where = {"step": at.step, "epoch": at.epoch, "seconds": round(at.seconds, 3)}
        self.metrics.write(**where, rows=at.rows, train_elbo=at.train_elbo, **values)
        at.lines = self.metrics.lines

    def _show(self) -> None:
        found = {"elbo": self.at.train_elbo, "valid": self.at.valid_elbo}
        self.bar.set_postfix({k: f"{v:.2f}" for k, v in found.items() if v is not None}, refresh=False)

    def _save_if_due(self, wish: Wish) -> None:
        if wish.signal is not None:
            how = (
                f"continue with --resume {self.run_dir}" if self.save() else "nothing is saved without a run directory"
            )
            raise Interrupted(f"stopped by {wish.signal.name} after step {self.at.step}: {how}", wish.signal)
        (step, clock), every = self._saved, self.training.checkpoint_steps
        if time.monotonic() - clock > self.training.checkpoint_seconds or (every and self.at.step - step >= every):
            self.save()

    def _last_good(self) -> str:
        there = self.run_dir is not None and checkpoint.exists(self.run_dir)
        return f"; the last good checkpoint is of step {self._saved[0]}, in {self.run_dir}" if there else ""

    def _progress(self) -> tqdm:
        hidden = self.training.quiet or not sys.stderr.isatty()
        return tqdm(total=self.total, initial=self.at.step, unit="step", disable=hidden, dynamic_ncols=True)

    def _fitted(self) -> Fitted:
        at, done = self.at, self.at.step - self.resumed_from
        rate = done / (at.seconds - self._before) if done else 0.0
        epochs = at.step / len(self.batches)
        return Fitted(at.step, epochs, at.seconds, rate, at.train_elbo, at.valid_elbo, self.resumed_from, self.note)
