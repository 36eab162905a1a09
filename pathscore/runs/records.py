"""The records of training: its settings (`Training`), its position (`Position`) and its result (`Fitted`)."""

from dataclasses import dataclass

from pathscore.errors import UsageError


@dataclass(frozen=True)
class Training:
    """How long to train, on which batches, and how often to write.

    batch_size: rows per step; the last step of an epoch takes the remaining rows.
    epochs, steps: the length of training; give one of them.
    seed, binarize: of the data, for `epoch_order` and `binarize`.
    log_steps: steps between two lines of metrics.
    checkpoint_seconds, checkpoint_steps: time or steps between two checkpoints, whichever comes first. A checkpoint is
        always written at the end.
    quiet: no progress bar.
    whole: the loss of a step is that of the whole data set, not the sum over the rows of the batch.

    Raises: UsageError for a length or a batch size below 1.
    """

    batch_size: int = 64
    epochs: int | None = None
    steps: int | None = None
    seed: int = 0
    binarize: str = "none"
    log_steps: int = 50
    checkpoint_seconds: float = 30.0
    checkpoint_steps: int | None = None
    quiet: bool = False
    whole: bool = False

    def __post_init__(self):
        if (self.epochs is None) == (self.steps is None):
            raise UsageError("give one of --epochs and --steps")
        for name in ("batch_size", "epochs", "steps", "log_steps", "checkpoint_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {value}")


@dataclass
class Position:
    """The position of a run, as plain numbers that are kept in checkpoints.

    step: completed steps. epoch, batch: the present epoch, and its completed batches.
    loss, rows: the loss of the present epoch so far, summed over this number of rows.
    square, norms: sum of the squared gradient norms since the last line of metrics that has one, and their number.
    seconds: time spent on steps. train_elbo, valid_elbo: the latest values. lines: lines of the metrics.
    closed: whether the latest epoch, or the part of it that was trained, has been validated.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    rows: int = 0
    square: float = 0.0
    norms: int = 0
    seconds: float = 0.0
    train_elbo: float | None = None
    valid_elbo: float | None = None
    lines: int = 0
    closed: bool = True


@dataclass(frozen=True)
class Fitted:
    """The result of training. ELBOs are in nats per data point; `train_elbo` is the mean over the last epoch's steps.

    seconds: time spent on all steps, also before a run was resumed. steps_per_second: of this process only.
    note: says so if a damaged checkpoint was skipped.
    """

    steps: int
    epochs: float
    seconds: float
    steps_per_second: float
    train_elbo: float | None
    valid_elbo: float | None
    resumed_from: int = 0
    note: str | None = None
