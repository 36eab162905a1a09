"""Families of distributions as estimators see them: one `Family` per kind, found by `family_of(fn)`.

A sample site's `fn` arrives wrapped (`.to_event`) and expanded over rows and plates; here it is unwrapped to the
distribution that holds the parameters.  Shapes: `fn` has batch shape (rows, *plates) and event shape *event.

The linear extension of a discrete log-probability, log q(b) = Σ_m b_m log q_m, agrees with the distribution at the
vertices and is defined (and differentiable) between them: what relaxed and mean-field values are scored by.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class Family:
    """A kind of distribution: its classes, the parameters that rebuild it, and what can be done with its values.

    `linear` is the linear extension of log q (None: values cannot be relaxed); `support` lists the values of one
    element (None: not finite).
    """

    name: str
    classes: tuple[type, ...]
    parameters: tuple[str, ...]
    linear: Callable[[Any, Tensor], Tensor] | None = None
    support: Callable[[Any], Tensor] | None = None


def _linear_bernoulli(fn: Any, value: Tensor) -> Tensor:
    return value * logsigmoid(fn.logits) + (1 - value) * logsigmoid(-fn.logits)


def _linear_one_hot(fn: Any, value: Tensor) -> Tensor:
    return (value * fn.logits).sum(-1)  # torch keeps categorical logits normalised


def _counts_up_to(fn: Any) -> Tensor:
    """0 … n of a binomial law with one n for all; nothing where they differ."""
    counts = fn.total_count
    most = int(counts.max())
    like = fn.mean
    return torch.arange(1 + most if bool((counts == most).all()) else 0, dtype=like.dtype, device=like.device)


MOST_DRAWS = 10_000
"""Most values of a multinomial that are listed."""


def _counts_of_classes(fn: Any) -> Tensor:
    """Every way to divide n draws among C classes, (M, C); nothing where there are more than `MOST_DRAWS` of them."""
    n, classes, like = fn.total_count, fn.event_shape[0], fn.logits
    if math.comb(n + classes - 1, n) > MOST_DRAWS:
        return like.new_zeros(0, classes)
    drawn = itertools.combinations_with_replacement(range(classes), n)
    return torch.tensor([[d.count(c) for c in range(classes)] for d in drawn], dtype=like.dtype, device=like.device)


FAMILIES = (
    Family(
        "bernoulli",
        (torch.distributions.Bernoulli,),
        ("logits",),
        _linear_bernoulli,
        lambda fn: torch.tensor([0.0, 1.0], dtype=fn.logits.dtype, device=fn.logits.device),
    ),
    Family(
        "onehot",
        (torch.distributions.OneHotCategorical,),
        ("logits",),
        _linear_one_hot,
        lambda fn: torch.eye(fn.logits.shape[-1], dtype=fn.logits.dtype, device=fn.logits.device),
    ),
    Family(
        "categorical",
        (torch.distributions.Categorical,),
        ("logits",),
        None,
        lambda fn: torch.arange(fn.logits.shape[-1], device=fn.logits.device),
    ),
    Family("binomial", (torch.distributions.Binomial,), ("total_count", "logits"), None, _counts_up_to),
    Family(
        "betabinomial", (dist.BetaBinomial,), ("concentration1", "concentration0", "total_count"), None, _counts_up_to
    ),
    Family("multinomial", (torch.distributions.Multinomial,), ("total_count", "logits"), None, _counts_of_classes),
    Family("geometric", (torch.distributions.Geometric,), ("logits",)),
    Family("negativebinomial", (torch.distributions.NegativeBinomial,), ("total_count", "logits")),
    Family("normal", (torch.distributions.Normal,), ("loc", "scale")),
    Family("multivariatenormal", (torch.distributions.MultivariateNormal,), ("loc", "scale_tril")),
    Family("poisson", (torch.distributions.Poisson,), ("rate",)),
    Family("gamma", (torch.distributions.Gamma,), ("concentration", "rate")),
)
ENUMERABLE = Family("enumerable", (), (), None, lambda fn: _listed(fn))
"""Any other distribution that lists its values: a user's own, of a truncated count, say."""
BY_NAME = {family.name: family for family in FAMILIES}


def _listed(fn: Any) -> Tensor:
    """What `enumerate_support` lists, (M, *event)."""
    return fn.enumerate_support(expand=False).reshape(-1, *fn.event_shape)


def unwrap(fn: Any) -> Any:
    """The distribution that holds the parameters: `fn` without its `.to_event` wrappers."""
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return fn


def family_of(fn: Any) -> Family | None:
    """The family of `fn`, or None when it is none of the table (the path or the score can still differentiate it)."""
    inner = unwrap(fn)
    known = next((f for f in FAMILIES if isinstance(inner, f.classes)), None)
    return known or (ENUMERABLE if getattr(inner, "has_enumerate_support", False) else None)


def family_name(fn: Any) -> str:
    """The family's name, or the distribution's class name in lower case."""
    family = family_of(fn)
    return family.name if family else type(unwrap(fn)).__name__.lower()


def is_discrete(fn: Any) -> bool:
    """Whether `fn`'s values are discrete."""
    return bool(fn.support.is_discrete)


def narrow(fn: Any, rows: slice | Tensor) -> Any:
    """`fn` restricted to some of its leading rows (same family, same event)."""
    if isinstance(fn, torch.distributions.Independent):
        alike = type(fn).__init__ is dist.Independent.__init__  # a subclass with a log-density of its own, say
        product = type(fn) if alike else dist.Independent
        return product(narrow(fn.base_dist, rows), fn.reinterpreted_batch_ndims, validate_args=False)
    family = family_of(fn)
    if family is None:
        raise NotImplementedError(f"cannot take rows of a {type(fn).__name__}")
    if family is ENUMERABLE:
        return _narrow_own(fn, rows)
    held = {name: getattr(fn, name) for name in family.parameters}
    parameters = {name: value[rows] if isinstance(value, Tensor) else value for name, value in held.items()}
    return getattr(dist, type(fn).__name__, type(fn))(**parameters, validate_args=False)


def _narrow_own(fn: Any, rows: slice | Tensor) -> Any:
    """A distribution of a class that is not known here, restricted to rows: every tensor of its batch shape is."""
    batch = tuple(fn.batch_shape)
    kept = torch.empty(batch[:1], device="meta")[rows].shape
    if isinstance(fn, ExpandedDistribution):
        base = fn.base_dist
        rowed = len(base.batch_shape) == len(batch) and base.batch_shape[0] == batch[0]
        return (narrow(base, rows) if rowed else base).expand(torch.Size((*kept, *batch[1:])))
    copied = object.__new__(type(fn))
    copied.__dict__.update(vars(fn), _batch_shape=torch.Size((*kept, *batch[1:])), _validate_args=False)
    for name, value in vars(fn).items():
        if isinstance(value, Tensor) and tuple(value.shape[: len(batch)]) == batch:
            copied.__dict__[name] = value[rows]
        elif isinstance(value, torch.distributions.Distribution) and tuple(value.batch_shape) == batch:
            copied.__dict__[name] = narrow(value, rows)
    return copied


def linear_log_prob(fn: Any, value: Tensor) -> Tensor:
    """Σ_m b_m log q_m: `fn.log_prob(value)` at the vertices, linear between them; shape (rows, *plates)."""
    family = family_of(fn)
    if family is None or family.linear is None:
        raise NotImplementedError(f"a {family_name(fn)} has no linear extension")
    inner = unwrap(fn)
    log_prob = family.linear(inner, value)
    return sum_right(log_prob, len(fn.event_shape) - len(inner.event_shape))


def sum_right(t: Tensor, ndims: int) -> Tensor:
    """Sum over the last `ndims` dimensions."""
    return t.sum(tuple(range(-ndims, 0))) if ndims else t


def element_shape(fn: Any) -> torch.Size:
    """Shape of the event counted in variables: (N,) for N one-hot variables of M classes, (D,) for D bits."""
    inner = unwrap(fn)
    ndims = len(inner.event_shape)
    return fn.event_shape[: len(fn.event_shape) - ndims]


def atoms(fn: Any) -> Tensor:
    """The values of one variable of a draw, (M, *event of the variable); none where they are not finitely many."""
    family = family_of(fn)
    return family.support(unwrap(fn)) if family is not None and family.support is not None else torch.zeros(0)


def support_size(fn: Any) -> float:
    """Number of joint values of one draw (inf when not finite)."""
    values = len(atoms(fn))
    return float(values) ** element_shape(fn).numel() if values else float("inf")


def joint_support(fn: Any) -> Tensor:
    """Every joint value of one draw, shape (S, *event)."""
    values, elements = atoms(fn), element_shape(fn)  # (M, *inner event)
    index = torch.tensor(
        list(itertools.product(range(len(values)), repeat=elements.numel())), dtype=torch.long, device=values.device
    ).reshape(-1, *elements)
    return values[index]


def stick_logits(logits: Tensor) -> Tensor:
    """Logits of the M − 1 stick-breaking bits of a categorical: a_m = l_m − log Σ_{j>m} exp l_j, shape (…, M − 1)."""
    tail = torch.logcumsumexp(logits.flip(-1), -1).flip(-1)
    return logits[..., :-1] - tail[..., 1:]


def stick_index(bits: Tensor) -> Tensor:
    """Index of the first bit that is one (M − 1 when none is), shape (…)."""
    ends = torch.ones_like(bits[..., :1])
    return torch.cat([bits, ends], -1).argmax(-1)


def one_hot_like(index: Tensor, logits: Tensor) -> Tensor:
    """One-hot coding of `index` in the dtype of `logits`."""
    return torch.eye(logits.shape[-1], dtype=logits.dtype, device=logits.device)[index]


def can_relax(fn: Any) -> bool:
    """Whether log q extends linearly to values between the vertices."""
    family = family_of(fn)
    return family is not None and family.linear is not None
