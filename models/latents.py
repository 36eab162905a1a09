"""Latent families: the distribution of a layer of latent variables, shared by models and guides.

An entry of `LATENTS` holds everything that a model or a guide must know about its latent variables, so that neither
mentions a family by name. A family turns the outputs of a network ("raw numbers") into a distribution, and a drawn
value into the inputs of the next network:

    family(raw)      : raw (…, raw_size)      -> distribution with batch shape (…) and event shape `event_shape`
    family.features(z): z (…, *event_shape)   -> centred features (…, width)

Shapes, for a layer of D variables (for `categorical`, N = D one-hot variables of M classes):

    family                       raw_size   event_shape   width
    normal, laplace, lognormal   2 D        (D,)          D
    bernoulli                    D          (D,)          D
    categorical                  N M        (N, M)        N M

Leading dimensions (particles, rows, enumerated states, the batch) always broadcast.
"""

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn import functional as F

from models.distributions import Bits, Factorised, Normals, OneHot
from pathscore.errors import UsageError, unknown

SCALE_FLOOR = 1e-6
"""Smallest scale. log N(z; μ, σ) divides by σ² and its gradient by σ⁴. float32 holds numbers down to 1e-38, so below
σ = 1e-9 the division is 0/0 at z = μ."""

SCALE_CAP = 1e6
"""Largest scale. The prior squares z = μ + σ ε, and float32 overflows at 3e38."""


def positive(raw: Tensor, cap: float = SCALE_CAP) -> Tensor:
    """Positive scale of a raw number: softplus(min(raw, cap)) + 1e-6, between 1e-6 and `cap`, same shape.

    Softplus grows linearly where exp would overflow float32 (raw = 89), so a large raw output gives a large scale and
    not Inf. The floor and the cap keep every density of this scale finite, and its gradient too.
    """
    return F.softplus(raw.clamp(max=cap)) + SCALE_FLOOR


class Latent:
    """A layer of `size` latent variables of one family; the base class of every entry of `LATENTS`.

    To add a family: write a subclass with `raw_size` and `__call__`, override what differs, and enter it in `LATENTS`.
    """

    reparameterised = False
    """Whether a draw is a differentiable function of its parameters and fixed noise."""

    def __init__(self, size: int, classes: int = 1):
        self.size, self.classes = size, classes
        self.raw_size = size
        self.event_shape: tuple[int, ...] = (size,)
        self.width = size

    @property
    def states(self) -> int | None:
        """Number of joint states of the layer; None where they are not finitely many."""
        return None

    def standard(self) -> Tensor:
        """Raw numbers of the family's standard member, which is the initial prior of a model: (raw_size,)."""
        return torch.zeros(self.raw_size)

    def __call__(self, raw: Tensor) -> dist.TorchDistribution:
        """The distribution with parameters `raw` (…, raw_size): batch shape (…), event shape `event_shape`."""
        raise NotImplementedError

    def features(self, z: Tensor) -> Tensor:
        """The input of the next network: `z` minus the mean of the standard member, flattened, (…, width)."""
        return z


class LocationScale(Latent):
    """Base of the families with a location and a scale. raw (…, 2 D) holds the locations, then the raw scales."""

    reparameterised = True
    family: type
    product: type[dist.Independent] = dist.Independent

    def __init__(self, size: int, classes: int = 1):
        super().__init__(size, classes)
        self.raw_size = 2 * size

    def standard(self) -> Tensor:
        """Location 0 and scale 1."""
        raw_scale = math.log(math.expm1(1 - SCALE_FLOOR))
        return torch.cat([torch.zeros(self.size), torch.full((self.size,), raw_scale)])

    def __call__(self, raw: Tensor) -> dist.TorchDistribution:
        loc, raw_scale = raw.chunk(2, -1)
        return self.product(self.family(loc, positive(raw_scale)), 1)


class Normal(LocationScale):
    """z ~ N(μ, σ²), standard member N(0, 1)."""

    family = dist.Normal
    product = Normals


class Laplace(LocationScale):
    """z ~ Laplace(μ, b), standard member Laplace(0, 1)."""

    family = dist.Laplace


class LogNormal(LocationScale):
    """log z ~ N(μ, σ²), standard member with mean e^½.

    μ is limited to ±10 and σ to 4, so that exp(μ + σ ε) and its square stay finite in float32.
    """

    def __call__(self, raw: Tensor) -> dist.TorchDistribution:
        loc, raw_scale = raw.chunk(2, -1)
        return dist.LogNormal(loc.clamp(-10.0, 10.0), positive(raw_scale, cap=4.0)).to_event(1)

    def features(self, z: Tensor) -> Tensor:
        return z - math.exp(0.5)


class Bernoulli(Latent):
    """b ~ Bernoulli(σ(logits)), standard member ½. The next network reads 2 b − 1."""

    @property
    def states(self) -> int:
        return 2**self.size

    def __call__(self, raw: Tensor) -> dist.TorchDistribution:
        return Bits(dist.Bernoulli(logits=raw), 1)

    def features(self, z: Tensor) -> Tensor:
        return 2 * z - 1


class Categorical(Latent):
    """N one-hot variables of M classes, standard member uniform. The next network reads z − 1/M."""

    def __init__(self, size: int, classes: int = 10):
        if classes < 2:
            raise UsageError(f"--classes {classes}: a categorical variable needs at least 2 classes")
        super().__init__(size, classes)
        self.raw_size = self.width = size * classes
        self.event_shape = (size, classes)

    @property
    def states(self) -> int:
        return self.classes**self.size

    def __call__(self, raw: Tensor) -> dist.TorchDistribution:
        logits = raw.unflatten(-1, self.event_shape)  # (…, N, M)
        return Factorised(OneHot(logits=logits), 1)

    def features(self, z: Tensor) -> Tensor:
        return z.flatten(-2) - 1 / self.classes


LATENTS: dict[str, type[Latent]] = {
    "normal": Normal,
    "laplace": Laplace,
    "lognormal": LogNormal,
    "bernoulli": Bernoulli,
    "categorical": Categorical,
}


def latent_layers(latent: str, layers: Sequence[int], classes: int = 10) -> list[Latent]:
    """The families of z1 (next to the data) … zL, one of size `layers[l]` each.

    Raises `UsageError` for an unknown family, no layers, or a layer without variables.
    """
    if latent not in LATENTS:
        raise unknown("latent", latent, LATENTS)
    if not layers or min(layers) < 1:
        given = ",".join(map(str, layers)) or "''"
        raise UsageError(f"--layers {given}: give at least one layer, each of at least 1 variable")
    return [LATENTS[latent](size, classes) for size in layers]
