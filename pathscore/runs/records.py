"""The plain records of training: what is asked (`Training`), where it is (`Position`), what came of it (`Fitted`)."""

from dataclasses import dataclass

from pathscore.errors import UsageError


@dataclass(frozen=True)
class Training:
    """How long to train, on which batches, and how often to write.

    batch_size: rows a step; the last step of an epoch takes what is left.
    epochs, steps: how long, one of the two. seed, binarize: of the data, as `epoch_order` and `binarize` take them.
    log_steps: steps between two lines of metrics. checkpoint_seconds, checkpoint_steps: time or steps between two
    checkpoints, whichever comes first; one is written at the end in any case. quiet: no progress bar.
    whole: the loss of a step is that of the whole data set, and not the sum over the rows of its batch.

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
    """Where a run stands; plain numbers, kept in checkpoints.

    step, epoch, batch: steps done, epoch, and batches of it done. loss, rows: the epoch's loss so far, summed over its
    rows. seconds: time spent on steps. train_elbo, valid_elbo: the latest. lines: of the metrics. closed: whether the
    latest epoch, or the part of it that was asked for, has had its validation.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    rows: int = 0
    seconds: float = 0.0
    train_elbo: float | None = None
    valid_elbo: float | None = None
    lines: int = 0
    closed: bool = True


@dataclass(frozen=True)
class Fitted:
    """What training came to; ELBOs in nats per data point, `train_elbo` averaged over the last epoch's steps.

    seconds is the time spent on steps, a resumed run's earlier ones too; steps_per_second is this process's alone.
    `note` tells of a damaged checkpoint that was passed over.
    """

    steps: int
    epochs: float
    seconds: float
    steps_per_second: float
    train_elbo: float | None
    valid_elbo: float | None
    resumed_from: int = 0
    note: str | None = None
