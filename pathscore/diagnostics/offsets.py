"""Move the parameters of a guide's distributions without editing the guide: `with Offsets(): guide(x)`.

Every unconstrained parameter (mean, log-scale, logits) of every latent site gets an additive offset, zero at first:
`Offsets.offsets[site, parameter]` has the shape of the parameter without its axis of draws, (*plates, *event), so each
data point has its own.
"""

import torch
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from torch.distributions import Independent, transform_to

from pathscore.errors import UsageError

REDUNDANT = {"probs": "logits", "covariance_matrix": "scale_tril", "precision_matrix": "scale_tril"}
"""Parameters that say the same as another one of the same distribution."""


class Offsets(Messenger):
    """The handler; it sits outside the program's own plates, so that `fn` has been broadcast to them.

    `nesting`: how deep the program nests plates. What `fn` has further left is draws, along which offsets are shared.
    """

    def __init__(self, nesting: int):
        super().__init__()
        self.nesting = nesting
        self.offsets: dict[tuple[str, str], torch.Tensor] = {}

    def _pyro_sample(self, msg):
        if not msg["is_observed"] and type(msg["fn"]).__name__ != "_Subsample":
            msg["fn"] = self._shifted(msg["name"], msg["fn"], self.nesting)

    def _shifted(self, name: str, fn, batch: int):
        """The same family, its parameters moved, Independent rebuilt around it; `batch` dimensions aren't draws."""
        if isinstance(fn, Delta):
            return fn  # a value computed from sites upstream, or a point, which has no parameters of a distribution
        if isinstance(fn, Independent):
            events = fn.reinterpreted_batch_ndims
            return type(fn)(self._shifted(name, fn.base_dist, batch + events), events)
        keys = [k for k in type(fn).arg_constraints if REDUNDANT.get(k) not in type(fn).arg_constraints]
        if not keys or not all(torch.is_tensor(getattr(fn, k, None)) for k in keys):
            raise UsageError(
                f"site {name!r} has a {type(fn).__name__}, whose parameters can't be re-optimised: the "
                "amortisation gap is for guides made of standard distributions"
            )
        return type(fn)(**{key: self._moved(name, key, fn, batch) for key in keys})

    def _moved(self, name: str, key: str, fn, batch: int) -> torch.Tensor:
        constraint = type(fn).arg_constraints[key]
        transform = transform_to(constraint)
        free = transform.inv(getattr(fn, key))
        if (name, key) not in self.offsets:
            shape = free.shape[max(0, free.dim() - batch - constraint.event_dim) :]
            self.offsets[name, key] = torch.zeros(shape, dtype=free.dtype, device=free.device, requires_grad=True)
        return transform(free + self.offsets[name, key])
