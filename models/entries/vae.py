"""The entry of the deep latent variable model: `--model vae`.

Its code is imported when it is called, so that the flags of the default program are known without importing torch.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from pathscore.config import SMALL_WIDTH, between, option
from pathscore.programs.entry import Program, first_sentence

WIDTH = between(1, 65_536)


@dataclasses.dataclass(frozen=True)
class Options:
    """The program: a deep latent variable model"""

    latent: str = option(
        "normal",
        "family of every latent layer",
        choices=("normal", "laplace", "lognormal", "bernoulli", "categorical"),
    )
    layers: tuple[int, ...] | None = option(
        None, "latent units per layer, starting next to x", check=WIDTH, none="auto"
    )
    classes: int = option(10, "classes of each categorical latent", check=between(2, 65_536))
    likelihood: str = option("bernoulli", "likelihood p(x | z)", choices=("bernoulli", "normal"))
    prior: str = option("fixed", "prior of the top layer", choices=("fixed", "learned"))
    guide: str = option(
        "amortised",
        "layers of q conditioned on the layer below (amortised) or only on x (factorised)",
        choices=("amortised", "factorised"),
    )
    trunk: str = option("mlp", "kind of network between layers", choices=("linear", "mlp", "conv"))
    hidden: tuple[int, ...] | None = option(
        None, "widths of the hidden layers, channels for conv", check=WIDTH, none="auto"
    )
    activation: str = option(
        "tanh", "activation function between hidden layers", choices=("tanh", "relu", "leaky-relu", "softplus", "silu")
    )


SIZES: dict[bool, dict[str, tuple[int, ...]]] = {
    True: {"layers": (16,), "hidden": (128,), "channels": (16, 32)},
    False: {"layers": (50,), "hidden": (400,), "channels": (32, 64)},
}
"""Values of "auto" for images of up to 256 values (True) and for larger ones; `channels`: --hidden of --trunk conv."""

SUMMED_STATES = 256
"""Largest number of joint states of layers with "auto" sizes, under an objective that sums them out."""


def make(data: Any, options: Options) -> tuple[Any, Any]:
    """Build model and guide from the same dictionary of arguments."""
    from guides import GUIDES
    from models.vae import VAE as Model

    width = data.x.shape[1]
    arguments = {**vars(options), "hidden": options.hidden or (), "shape": data.shape}
    arguments["x_mean"] = data.x.mean(0).float().cpu()
    guide = GUIDES[arguments.pop("guide")]
    return Model(width, **arguments), guide(width, **arguments)


def settle(options: Options, data: Any, summed: bool) -> dict[str, Any]:
    """Sizes for the width of the data; small layers where their joint states are summed out."""
    from pathscore.data import default_binarize

    sizes = SIZES[data.x.shape[1] <= SMALL_WIDTH]
    hidden = {"linear": None, "conv": sizes["channels"]}.get(options.trunk, sizes["hidden"])
    chosen = narrowed(options, sizes["layers"]) if summed else sizes["layers"]
    return {"layers": chosen, "hidden": hidden, "binarize": default_binarize(data.kind, options.likelihood)}


def narrowed(options: Options, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes, reduced until the joint states are few enough to sum out; unchanged for continuous families."""
    while max(sizes) > 1 and states(dataclasses.replace(options, layers=sizes)) > SUMMED_STATES:
        sizes = tuple(max(1, n - 1) for n in sizes)
    return sizes


def states(options: Options) -> int:
    """Number of joint states of all layers, 0 where it is not finite."""
    return prod(layer.states or 0 for layer in layers(options))


def layers(options: Options) -> Sequence[Any]:
    """The families of z1 … zL."""
    from models.latents import LATENTS

    return [LATENTS[options.latent](size, options.classes) for size in options.layers or ()]


def check(data: Any, options: Options, binarize: str) -> None:
    """Raise an error for values that the likelihood has no density for."""
    from pathscore.data import check_values

    check_values(data, options.likelihood, binarize)


def title(options: Options) -> str:
    """Family and sizes of the layers."""
    return f"{options.latent} {','.join(map(str, options.layers or ()))}"


def kept(options: Options, width: int) -> int:
    """Numbers kept for each row: the decoder's output and its gradient, the hidden units, parameters and draw of z."""
    hidden = 0 if options.trunk == "conv" else sum(options.hidden or ())
    return 2 * width + hidden + 2 * sum(options.layers or ())


def reference(model: Any, guide: Any, args: tuple, options: Options) -> dict[str, float]:
    """The exact log p(x), where the joint states are few."""
    from pathscore.evaluation import exact_log_likelihood

    if not 0 < states(options) <= SUMMED_STATES:
        return {}
    return {"log_likelihood": exact_log_likelihood(model, guide, args).mean().item()}


def floor(training: tuple, held_out: tuple, options: Options) -> dict[str, float]:
    """Independent values: the likelihood with the mean of each value, and no latent variable."""
    from models.likelihoods import LIKELIHOODS

    fitted = LIKELIHOODS[options.likelihood].independent(training[0])
    return {"independent values": fitted.log_prob(held_out[0]).mean().item()}


def pictures(model: Any, guide: Any, args: tuple, data: Any, options: Options) -> dict[str, Any]:
    """Reconstructions beside originals, and samples from the prior."""
    from pathscore.runs.pictures import of_rows

    return of_rows(model, guide, args[0], data.shape)


def networks(model: Any, guide: Any) -> dict[str, Any]:
    """Encoder and decoder."""
    from models.entries import vae_networks

    return vae_networks.networks(model, guide)


def columns() -> Mapping[str, tuple[Mapping[str, Any], Any]]:
    """A column for each latent family: a layer of two data points."""
    import torch

    from models.latents import LATENTS

    small = {name: family(2, 3) for name, family in LATENTS.items()}
    return {name: ({"latent": name}, layer(torch.zeros(2, layer.raw_size))) for name, layer in small.items()}


def tables() -> Mapping[str, Mapping[str, str]]:
    """The tables that the program's own choices come from."""
    from guides import GUIDES
    from models.latents import LATENTS
    from models.likelihoods import LIKELIHOODS
    from models.trunks import TRUNKS

    found = {"--latent": LATENTS, "--likelihood": LIKELIHOODS, "--trunk": TRUNKS, "--guide": GUIDES}
    return {flag: {name: first_sentence(cls) for name, cls in table.items()} for flag, table in found.items()}


PROGRAM = Program(
    make=make,
    options=Options,
    settle=settle,
    check=check,
    layers=layers,
    title=title,
    kept=kept,
    reference=reference,
    floor=floor,
    pictures=pictures,
    networks=networks,
    columns=columns,
    by="latent",
    tables=tables,
)
