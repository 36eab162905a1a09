"""From a configuration to everything that a run needs, with every refusal before the first step.

`assemble(config) -> Assembly`: the data are read and checked, each "auto" is settled, the objective is held against the
model, and the programs are made, in that order; a choice that cannot work is a UsageError naming its flag.
"""

from dataclasses import dataclass, replace
from math import prod
from types import ModuleType
from typing import Any

import torch
from pyro.infer import ELBO
from torch import nn

from pathscore.compiling.compiled_elbo import compiled
from pathscore.config import OPTIONS, SMALL_WIDTH, Config
from pathscore.data import Dataset, check_values, default_binarize, load_dataset, load_file
from pathscore.data.epochs import binarize
from pathscore.elbos import ELBOS, KLWeight, kl_weighted, make_elbo, refusal
from pathscore.elbos.site import SiteELBO
from pathscore.errors import UsageError
from pathscore.estimators import parse
from pathscore.programs.lookup import programs
from pathscore.runs.memory import refuse_too_big
from pathscore.svi import SVI
from pathscore.svi.optimiser import OptimizerSpec

SUMMED_STATES = 256
"""Joint states that an "auto" layer is kept to under an objective which sums them out."""


@dataclass(frozen=True)
class Assembly:
    """A run before its first step.

    config: without "auto". dataset: its tensors on the device. model, guide: the programs, without the KL weight.
    svi: them and the objective, ready to step. explanation: which estimator each site has, where one was named.
    """

    config: Config
    dataset: Dataset
    model: nn.Module
    guide: nn.Module
    kl_weight: KLWeight
    svi: SVI
    steps: int
    explanation: str | None


def assemble(config: Config) -> Assembly:
    """Everything that the configured run needs. Raises UsageError (one line) for what cannot work.

    Initial weights are drawn from torch's global generator, seeded with `config.seed`.
    """
    models, guides = programs()
    device = find_device(config.device)
    dataset = load_file(config.data) if config.data else load_dataset(config.dataset, config.data_dir)
    config = settle(config, dataset.x.shape[1], dataset.kind, models)
    check_values(dataset, config.likelihood, config.binarize or "none")
    refuse_pair(config, models)
    refuse_too_big(config, dataset.x, summed_states(config, models), device)
    elbo = objective(config)
    dataset = on_device(dataset, device, getattr(torch, config.dtype))
    torch.manual_seed(config.seed)
    model, guide = (program.to(dataset.x) for program in make_programs(config, dataset, models, guides))
    per_epoch = -(-len(dataset.x) // (config.batch_size or 1))
    steps = config.steps or (config.epochs or 0) * per_epoch
    weight = KLWeight(config.kl_weight, round(config.kl_warmup * per_epoch))
    pair = (kl_weighted(model, weight), kl_weighted(guide, weight)) if weighted(config) else (model, guide)
    elbo = compiled(elbo, config.compile, steps, device)
    svi = SVI(*pair, optimizer(config, steps, per_epoch), elbo, per_datum=True)
    explanation = explain(svi, binarize(dataset.x[:4], config.binarize or "none"))
    return Assembly(config, dataset, model, guide, weight, svi, steps, explanation)


def test_set(job: Assembly) -> torch.Tensor:
    """The held-out data as the likelihood scores them, the same whatever the training set was drawn anew for."""
    mode = job.config.binarize or "none"
    return binarize(job.dataset.x_test, "static" if mode == "dynamic" else mode)


def objective(config: Config) -> ELBO:
    """The objective of a settled configuration, with the estimators that it names.

    Raises UsageError for an option of another objective, as `make_elbo` does for its own reasons.
    """
    refuse_idle(config)
    options = {name: getattr(config, name) for name in ELBOS[config.elbo].options if hasattr(config, name)}
    estimators = parse(config.estimator) if config.estimator else None
    return make_elbo(config.elbo, estimators, config.particles or 1, max_plate_nesting=1, **options)


def refuse_idle(config: Config) -> None:
    """Raise UsageError where an option was given that the objective has no use for."""
    for name in dict.fromkeys(option for entry in ELBOS.values() for option in entry.options):
        if getattr(config, name) != OPTIONS[name].default and name not in ELBOS[config.elbo].options:
            users = ", ".join(entry.name for entry in ELBOS.values() if name in entry.options)
            raise UsageError(f"{OPTIONS[name].flag} has no effect under --elbo {config.elbo}: it belongs to {users}")


def optimizer(config: Config, steps: int, per_epoch: int) -> OptimizerSpec:
    """The optimiser that a configuration describes, for a run of `steps` steps, `per_epoch` to a pass."""
    return OptimizerSpec(
        name=config.optimizer,
        lr=config.lr,
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


def explain(svi: SVI, batch: torch.Tensor) -> str | None:
    """The table of sites and their estimators, None under Pyro's own gradient.

    Raises UsageError where an estimator cannot serve its site.
    """
    if not isinstance(svi.elbo, SiteELBO):
        return None
    with svi.scope():
        return svi.elbo.explain(svi.model, svi.guide, batch)


def settle(config: Config, width: int, kind: str, models: ModuleType) -> Config:
    """The configuration with every "auto" replaced by a value that suits objective, estimators and data.

    width, kind: numbers per datum, and the kind of `pathscore.data.Dataset`.
    """
    given = config.layers
    config = config.for_data(width, default_binarize(kind, config.likelihood))
    entry = ELBOS[config.elbo]
    if given is None and entry.enumerable:
        config = replace(config, layers=enumerable_layers(config, models))
    if config.threads is None:
        # Barriers between threads cost more than a small model's work; torch's own number follows OMP_NUM_THREADS.
        config = replace(config, threads=1 if width <= SMALL_WIDTH else torch.get_num_threads())
    if config.particles is None:
        chosen = parse(config.estimator).values() if config.estimator else ()
        config = replace(
            config, particles=max([entry.particles, entry.min_particles, *(e.min_particles for e in chosen)])
        )
    return config


def enumerable_layers(config: Config, models: ModuleType) -> tuple[int, ...]:
    """The "auto" layers, narrowed until their joint states can be summed out quickly; as they are if never."""
    family, layers = models.LATENTS[config.latent], config.layers or ()
    while max(layers) > 1 and prod(family(n, config.classes).states or 0 for n in layers) > SUMMED_STATES:
        layers = tuple(max(1, n - 1) for n in layers)
    return layers


def summed_states(config: Config, models: ModuleType) -> int:
    """Joint states that the objective sums over; 1 where it samples."""
    if not ELBOS[config.elbo].enumerable:
        return 1
    return prod(models.LATENTS[config.latent](size, config.classes).states or 1 for size in config.layers or ())


def refuse_pair(config: Config, models: ModuleType) -> None:
    """Raise UsageError, with the legal list, where the objective is wrong for the model."""
    if reason := refusal(config.elbo, layers_of(config, models), **circumstances(config)):
        raise UsageError(f"--elbo {config.elbo} with --latent {config.latent}: {reason}")


def why_not(config: Config, models: ModuleType) -> str | None:
    """Why the objective of a settled configuration is wrong for its model; None where it is right."""
    return ELBOS[config.elbo].refusal(layers_of(config, models), **circumstances(config))


def layers_of(config: Config, models: ModuleType) -> list[Any]:
    """The families of the layers of a settled configuration."""
    return [models.LATENTS[config.latent](size, config.classes) for size in config.layers or ()]


def circumstances(config: Config) -> dict[str, Any]:
    """What else the rules of `Objective.refusal` ask about."""
    return {
        "guide": config.guide,
        "particles": config.particles,
        "batch_size": config.batch_size,
        "kl_weighted": weighted(config),
    }


def weighted(config: Config) -> bool:
    """Whether the latent terms carry a weight other than 1 at some step."""
    return config.kl_weight != 1 or config.kl_warmup > 0


def make_programs(
    config: Config, dataset: Dataset, models: ModuleType, guides: ModuleType
) -> tuple[nn.Module, nn.Module]:
    """Model and guide, from one dictionary of arguments."""
    arguments: dict[str, Any] = {
        name: getattr(config, name)
        for name in ("latent", "layers", "likelihood", "trunk", "hidden", "activation", "classes", "prior")
    }
    arguments |= {"hidden": config.hidden or (), "shape": dataset.shape, "x_mean": dataset.x.mean(0).float().cpu()}
    width = dataset.x.shape[1]
    return models.MODELS[config.model](width, **arguments), guides.GUIDES[config.guide](width, **arguments)


def find_device(name: str) -> torch.device:
    """The device of that name, "auto" being a GPU where there is one. Raises UsageError when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name} is not available here ({reason}): choose cpu") from None


def on_device(dataset: Dataset, device: torch.device, dtype: torch.dtype) -> Dataset:
    """The data set with its tensors on the device, values in `dtype`."""
    return replace(dataset, x=dataset.x.to(device, dtype), x_test=dataset.x_test.to(device, dtype))
