"""Trunks: the networks between layers, one entry of `TRUNKS` each, shared by models and guides.

A trunk is a builder of modules, each a map of the last dimension that broadcasts over all the others:

    trunk.encoder(bias)          : centred data (…, X)  -> (…, outputs)
    trunk.between(inputs, bias)  : features (…, inputs) -> (…, outputs)
    trunk.decoder(inputs, bias)  : features (…, inputs) -> (…, X)

`bias` (outputs,) is the initial bias of the output: a family's standard member, or the log-odds of the data. `hidden`
gives the widths from the data upwards; the decoder has them in reverse order.

Weights are initialised uniformly within ±√(6 / (inputs + outputs)), and biases at 0. This keeps the variance from one
tanh layer to the next; the ±1/√inputs of `nn.Linear` divides it by three in every layer.

References:
    Understanding the difficulty of training deep feedforward neural networks. X. Glorot, Y. Bengio, 2010.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from pathscore.errors import UsageError, unknown

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky-relu": partial(nn.LeakyReLU, 0.3),  # the slope that the discrete-VAE papers use, not torch's .01
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
}


Layer = TypeVar("Layer", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def glorot(layer: Layer, inputs: float, outputs: float) -> Layer:
    """`layer` with Glorot's weights for `inputs` and `outputs` connections per unit, and with biases 0."""
    bound = math.sqrt(6 / (inputs + outputs))
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def affine(inputs: int, bias: Tensor) -> nn.Linear:
    """An affine map (…, inputs) -> (…, len(bias)) with initial bias `bias`."""
    linear = glorot(nn.Linear(inputs, len(bias)), inputs, len(bias))
    with torch.no_grad():
        linear.bias.copy_(bias)
    return linear


def mlp(inputs: int, hidden: Sequence[int], bias: Tensor, activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Affine maps from `inputs` through the widths `hidden` to len(bias), with `activation` between them."""
    modules: list[nn.Module] = []
    for before, width in pairwise([inputs, *hidden]):
        modules += [affine(before, torch.zeros(width)), activation()]
    return nn.Sequential(*modules, affine(hidden[-1] if hidden else inputs, bias))


class Trunk:
    """Base class of every entry of `TRUNKS`: a builder of networks for data of shape `shape`, whose product is X."""

    images = False
    """Whether `shape` must be that of an image, (C, H, W)."""

    def __init__(self, shape: tuple[int, ...], hidden: Sequence[int] = (), activation: str = "tanh"):
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, ACTIVATIONS)
        if any(width < 1 for width in hidden):
            raise UsageError(f"--hidden {','.join(map(str, hidden))}: every width must be at least 1")
        self.shape, self.hidden, self.activation = shape, tuple(hidden), ACTIVATIONS[activation]
        self.size = math.prod(shape)

    def encoder(self, bias: Tensor) -> nn.Module:
        """A network from the data (…, X) to the raw numbers of a layer, (…, len(bias))."""
        raise NotImplementedError

    def between(self, inputs: int, bias: Tensor) -> nn.Module:
        """A network from one layer's features (…, inputs) to the next layer's raw numbers, (…, len(bias))."""
        raise NotImplementedError

    def decoder(self, inputs: int, bias: Tensor) -> nn.Module:
        """A network from features (…, inputs) to the raw numbers of the data, (…, X)."""
        raise NotImplementedError


class Linear(Trunk):
    """One affine map, no hidden layer: with Bernoulli latents, a sigmoid belief net. `hidden` is not used."""

    def encoder(self, bias: Tensor) -> nn.Module:
        return affine(self.size, bias)

    def between(self, inputs: int, bias: Tensor) -> nn.Module:
        return affine(inputs, bias)

    def decoder(self, inputs: int, bias: Tensor) -> nn.Module:
        return affine(inputs, bias)


class MLP(Trunk):
    """Fully connected layers of widths `hidden`."""

    def encoder(self, bias: Tensor) -> nn.Module:
        return mlp(self.size, self.hidden, bias, self.activation)

    def between(self, inputs: int, bias: Tensor) -> nn.Module:
        return mlp(inputs, self.hidden, bias, self.activation)

    def decoder(self, inputs: int, bias: Tensor) -> nn.Module:
        return mlp(inputs, self.hidden[::-1], bias, self.activation)


class OverLast(nn.Module):
    """Applies a network for images to flat vectors with any leading shape: (…, inputs) -> (…, outputs)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.flatten(end_dim=-2)).unflatten(0, x.shape[:-1])


class PixelBias(nn.Module):
    """Adds a learned bias for each pixel to flat pixels (…, X). A convolution has only one bias per channel."""

    def __init__(self, bias: Tensor):
        super().__init__()
        self.bias = nn.Parameter(bias.to(torch.get_default_dtype(), copy=True))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class Conv(Trunk):
    """One 3×3 convolution with stride 2 for each number of channels in `hidden`, then one affine map.

    The decoder is the reverse, with transposed convolutions. Between layers of latents there is no image, so that
    network is an MLP.
    """

    images = True

    def __init__(self, shape: tuple[int, ...], hidden: Sequence[int] = (), activation: str = "tanh"):
        super().__init__(shape, hidden, activation)
        if len(shape) != 3:
            raise UsageError(f"--trunk conv needs images, and this data has shape {shape}: choose linear or mlp")
        if not hidden:
            raise UsageError("--trunk conv needs --hidden, one number of channels per convolution: for example 32,64")
        channels, height, width = shape
        self.stages = [(channels, height, width)]  # (channels, height, width) from the data upwards
        for channels in hidden:
            height, width = -(-height // 2), -(-width // 2)
            self.stages.append((channels, height, width))

    def encoder(self, bias: Tensor) -> nn.Module:
        modules: list[nn.Module] = [nn.Unflatten(1, self.stages[0])]
        for (inputs, _, _), (channels, _, _) in pairwise(self.stages):
            down = nn.Conv2d(inputs, channels, 3, stride=2, padding=1)
            # With stride 2 an output reads 9 pixels of each channel, and 9/4 outputs of each channel read a pixel.
            modules += [glorot(down, 9 * inputs, 9 / 4 * channels), self.activation()]
        return OverLast(nn.Sequential(*modules, nn.Flatten(), affine(math.prod(self.stages[-1]), bias)))

    def between(self, inputs: int, bias: Tensor) -> nn.Module:
        return mlp(inputs, self.hidden, bias, self.activation)

    def decoder(self, inputs: int, bias: Tensor) -> nn.Module:
        first = affine(inputs, torch.zeros(math.prod(self.stages[-1])))
        modules: list[nn.Module] = [first, nn.Unflatten(1, self.stages[-1])]
        for (channels, h, w), (outputs, height, width) in pairwise(reversed(self.stages)):
            # Images of height 2h − 1 and of height 2h both have h rows after the convolution.
            padding = (height - 2 * h + 1, width - 2 * w + 1)
            up = nn.ConvTranspose2d(channels, outputs, 3, stride=2, padding=1, output_padding=padding)
            modules += [self.activation(), glorot(up, 9 / 4 * channels, 9 * outputs)]
        return OverLast(nn.Sequential(*modules, nn.Flatten(), PixelBias(bias)))


TRUNKS: dict[str, type[Trunk]] = {"linear": Linear, "mlp": MLP, "conv": Conv}


def make_trunk(
    trunk: str, data_size: int, shape: tuple[int, ...] | None, hidden: Sequence[int], activation: str
) -> Trunk:
    """The builder named `trunk` for data of `data_size` numbers, laid out as `shape` if that is known.

    Raises `UsageError` for an unknown name, a shape that does not hold `data_size` numbers, or `conv` without images.
    """
    if trunk not in TRUNKS:
        raise unknown("trunk", trunk, TRUNKS)
    shape = (data_size,) if shape is None else tuple(shape)
    if math.prod(shape) != data_size:
        raise UsageError(f"shape {shape} holds {math.prod(shape)} numbers, the data {data_size}: give the data's shape")
    return TRUNKS[trunk](shape, hidden, activation)
