"""Make everything that a run needs from its configuration, with all checks before the first step.

`assemble(config) -> Assembly` reads and checks the data, replaces each "auto" by a value, checks that the objective is
right for the program, and makes model and guide, in this order. A choice that cannot work is a UsageError that names
its flag.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO

from pathscore.compiling.compiled_elbo import compiled
from pathscore.config import COMMON, LR, PYROS, SMALL_WIDTH, Config, by_pattern, completed
from pathscore.data import DATASETS, NOTHING, Arguments, Dataset, binarize, load_dataset, load_file, refuse_other
from pathscore.elbos import ELBOS, KLWeight, kl_weighted, make_elbo
from pathscore.elbos.site import SiteELBO
from pathscore.errors import UsageError
from pathscore.estimators import Estimator, parse
from pathscore.exact.rows import trial
from pathscore.programs.entry import Program
from pathscore.programs.lookup import absolute
from pathscore.runs.choosing import chosen, rows
from pathscore.runs.legality import declared, found, refuse, summed_states, weighted
from pathscore.runs.memory import refuse_too_big
from pathscore.runs.plates import refuse_plates
from pathscore.svi import SVI
from pathscore.svi.optimiser import OptimizerSpec


@dataclass(frozen=True)
class Assembly:
    """A run before its first step.

    config: without "auto". dataset: its tensors are on the device. model, guide: the programs without the KL weight.
    svi: model, guide and objective, ready for a step. explanation: the estimator of each site, as a table.
    """

    config: Config
    dataset: Dataset
    model: Any
    guide: Any
    kl_weight: KLWeight
    svi: SVI
    steps: int
    explanation: str

    @property
    def program(self) -> Program:
        """The entry that the run's programs come from."""
        return self.config.program

    @property
    def training(self) -> Arguments:
        """The training data, not binarised."""
        return self.dataset.arguments(self.program.takes)

    @property
    def held_out(self) -> Arguments:
        """The held-out data, binarised once if the training data are binarised."""
        mode = self.config.binarize or "none"
        return binarized(self.dataset.arguments(self.program.takes, test=True), "static" if mode == "dynamic" else mode)

    @property
    def examined(self) -> Arguments:
        """The data for the lab and the diagnostics: held-out data, or the training set if data points share latents."""
        return self.held_out if self.local else self.training

    @property
    def local(self) -> bool:
        """Whether the bound is a sum over data points, each with latent variables of its own."""
        return bool(self.training) and not self.program.whole


def assemble(config: Config) -> Assembly:
    """Everything that the configured run needs. Raises UsageError (one line) for a choice that cannot work.

    Initial weights are drawn from torch's global generator, seeded with `config.seed`.
    """
    device = find_device(config.device)
    program = config.program
    dataset = load(config, program)
    config = settle(config, dataset)
    program.check(dataset, config.options, config.binarize or "none")
    layers = declared(config)
    if layers is not None:
        refuse(config, layers)
    refuse_too_big(config, dataset.x, summed_states(config, layers or ()), device)
    refuse_idle(config)
    dataset = on_device(dataset, device, getattr(torch, config.dtype))
    torch.manual_seed(config.seed)
    model, guide = (placed(part, dataset.x) for part in program.make(dataset, config.options))
    per_epoch = max(1, -(-len(dataset.x) // (config.batch_size or 1)))
    steps = config.steps or (config.epochs or 0) * per_epoch
    batch = binarized(tuple(tensor[:4] for tensor in dataset.arguments(program.takes)), config.binarize or "none")
    depth = 1 if layers is not None else met(config, model, guide, batch, len(dataset.x))
    training = dataset.arguments(program.takes)
    first = rows(training, config.batch_size, config.binarize or "none")
    config, found = chosen(config, model, guide, first, config.compile == "on")
    elbo = compiled(objective(config, depth), config.compile, steps, device)
    weight = KLWeight(config.kl_weight, round(config.kl_warmup * per_epoch))
    pair = (kl_weighted(model, weight), kl_weighted(guide, weight)) if weighted(config) else (model, guide)
    per_datum = bool(batch) and not program.whole
    svi = SVI(*pair, optimizer(config, steps, per_epoch), elbo, per_datum=per_datum, publish=False)
    explanation = explain(svi, batch) if found is None else f"{found.table()}\n\n{explain(svi, batch)}"
    return Assembly(config, dataset, model, guide, weight, svi, steps, explanation)


def load(config: Config, program: Program) -> Dataset:
    """The data of a run. Raises UsageError where they do not hold what the program takes."""
    if not program.takes:
        if config.data or config.dataset:
            flag = "--data" if config.data else "--dataset"
            raise UsageError(f"--model {config.model} needs no data: remove {flag}")
        return NOTHING
    if config.data:
        dataset = load_file(config.data, program.takes)
    else:
        dataset = load_dataset(config.dataset or program.dataset, config.data_dir)
    refuse_other(dataset, program.takes, config.model)
    return dataset


def settle(config: Config, dataset: Dataset) -> Config:
    """The configuration with every "auto" replaced by a value that suits program, objective, estimators and data.

    Paths become absolute, so that the run can be opened from any directory.
    """
    program, entry, width = config.program, ELBOS[config.elbo], dataset.x.shape[1:].numel()
    config = config.settled(width, program.settle(config.options, dataset, bool(entry.enumerable)))
    if config.threads is None:
        # Barriers between threads cost more than a small model's work; torch's own number follows OMP_NUM_THREADS.
        config = replace(config, threads=1 if width <= SMALL_WIDTH else torch.get_num_threads())
    config = replace(config, estimator=completed(config.estimator, entry.usual))
    if config.particles is None:
        least = max((e.min_particles for e in named_estimators(config).values()), default=1)
        config = replace(config, particles=max(entry.particles, entry.min_particles, least))
    return replace(config, model=absolute(config.model), **places(config, program))


def places(config: Config, program: Program) -> dict[str, Any]:
    """The absolute paths of the data, and the name of the data set where the program chose it."""
    if not program.takes:
        return {}
    if config.data:
        return {"data": str(Path(config.data).expanduser().absolute())}
    name = config.dataset or program.dataset
    offline = DATASETS[name].offline
    return {"dataset": name} | ({} if offline else {"data_dir": str(Path(config.data_dir).expanduser().absolute())})


def objective(config: Config, depth: int = 1) -> ELBO:
    """The objective of a configuration without "auto", with its estimators, for `depth` nested plates."""
    options = {name: getattr(config, name) for name in ELBOS[config.elbo].options if hasattr(config, name)}
    estimators = named_estimators(config) or None
    return make_elbo(config.elbo, estimators, config.particles or 1, max_plate_nesting=depth, **options)


def named_estimators(config: Config) -> dict[str, Estimator]:
    """Site pattern → estimator, without sites that have Pyro's own gradient. Raises UsageError for "z=default"."""
    words = by_pattern(config.estimator or PYROS)
    if alone := [site for site, word in words.items() if word == PYROS and site != "*"]:
        raise UsageError(
            f"--estimator {alone[0]}={PYROS}: {PYROS} stands for all sites that are not named: give pathwise or score"
        )
    others = [f"{site}={word}" for site, word in words.items() if word != PYROS]
    return parse(",".join(others)) if others else {}


def refuse_idle(config: Config) -> None:
    """Raise UsageError for an option that the objective does not use."""
    for name in dict.fromkeys(option for entry in ELBOS.values() for option in entry.options):
        if getattr(config, name) != COMMON[name].default and name not in ELBOS[config.elbo].options:
            users = ", ".join(entry.name for entry in ELBOS.values() if name in entry.options)
            raise UsageError(f"{COMMON[name].flag} has no effect under --elbo {config.elbo}: it belongs to {users}")


def met(config: Config, model: Callable, guide: Callable, batch: Arguments, points: int) -> int:
    """Run a program without declared layers, check objective and plates against its sites, and count nested plates."""
    scratch = SVI(model, guide, publish=False)  # a parameter store that is discarded
    with scratch.scope():
        refuse(config, found(model, guide, batch))
        whole, size = config.program.whole, config.batch_size or 1
        refuse_plates(model, guide, batch, points=points, whole=whole, batch_size=size)
        return max(1, trial(model, guide, batch, {})[1])


def optimizer(config: Config, steps: int, per_epoch: int) -> OptimizerSpec:
    """The optimiser of a configuration, for a run of `steps` steps with `per_epoch` steps per epoch."""
    return OptimizerSpec(
        name=config.optimizer,
        lr=config.lr or LR,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        clip_norm=config.clip,
        schedule=config.schedule,
        warmup_steps=config.warmup,
        total_steps=steps,
        steps_per_pass=per_epoch,
        estimator_lr=config.estimator_lr,
    )


def explain(svi: SVI, batch: Sequence[torch.Tensor]) -> str:
    """The table of sites and their estimators. Raises UsageError where an estimator does not support its site."""
    # Pyro's own objectives are not prepared: parameters that their programs make are made in the first step.
    scratch = svi if isinstance(svi.elbo, SiteELBO) else SVI(svi.model, svi.guide, publish=False)
    with scratch.scope():
        explained: Any = svi.elbo  # every objective of `make_elbo` has `explain`; Pyro's own type does not say so
        return explained.explain(svi.model, svi.guide, *batch)


def binarized(args: Arguments, mode: str) -> Arguments:
    """The arguments, with the first one binarised."""
    return (binarize(args[0], mode), *args[1:]) if args else args


def find_device(name: str) -> torch.device:
    """The device of this name; "auto" is a GPU if there is one. Raises UsageError when the device is not available."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name} is not available here ({reason}): choose cpu") from None


def placed(part: Any, like: torch.Tensor) -> Any:
    """A module with its weights on the device and in the type of a tensor; a function is returned as it is."""
    return part.to(like) if isinstance(part, torch.nn.Module) else part


def on_device(dataset: Dataset, device: torch.device, dtype: torch.dtype) -> Dataset:
    """The data set with its tensors on the device, and its floating-point tensors in `dtype`."""
    names = ("x", "x_test", "labels", "labels_test", "lengths", "lengths_test")
    found = {name: getattr(dataset, name) for name in names}
    return replace(dataset, **{name: _moved(t, device, dtype) for name, t in found.items() if t is not None})


def _moved(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
