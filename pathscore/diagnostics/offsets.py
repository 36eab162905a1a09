"""Move the parameters of a guide's distributions without editing the guide: `with Offsets(): guide(x)`.

Every unconstrained parameter (mean, log-scale, logits) of every latent site gets an additive offset, zero at first:
`Offsets.offsets[site, parameter]` has the shape of the parameter without its axis of draws, (*plates, *event), so each
data point has its own.
"""

import torch
from pyro.poutine.messenger import Messenger
from torch.distributions import Independent, transform_to

from pathscore.errors import UsageError

REDUNDANT = {"probs": "logits", "covariance_matrix": "scale_tril", "precision_matrix": "scale_tril"}
"""Parameters that say the same as another one of the same distribution."""


class Offsets(Messenger):
    """The handler; it sits outside the program's plates, so that `fn` already has its full batch shape.

    `drop_draws`: the outermost batch dimension is one of draws, and offsets are shared along it.
    """

    def __init__(self, drop_draws: bool):
        super().__init__()
        self.drop_draws = drop_draws
        self.offsets: dict[tuple[str, str], torch.Tensor] = {}

    def _pyro_sample(self, msg):
        if not msg["is_observed"] and type(msg["fn"]).__name__ != "_Subsample":
            msg["fn"] = self._shifted(msg["name"], msg["fn"])

    def _shifted(self, name: str, fn):
        """The same family with its parameters moved, and Independent rebuilt around it."""
        if isinstance(fn, Independent):
            return type(fn)(self._shifted(name, fn.base_dist), fn.reinterpreted_batch_ndims)
        keys = [k for k in type(fn).arg_constraints if REDUNDANT.get(k) not in type(fn).arg_constraints]
        if not keys or not all(torch.is_tensor(getattr(fn, k, None)) for k in keys):
            raise UsageError(
                f"site {name!r} has a {type(fn).__name__}, whose parameters can't be re-optimised: the "
                "amortisation gap is for guides made of standard distributions"
            )
        return type(fn)(**{key: self._moved(name, key, fn) for key in keys})

    def _moved(self, name: str, key: str, fn) -> torch.Tensor:
        transform = transform_to(type(fn).arg_constraints[key])
        free = transform.inv(getattr(fn, key))
        if (name, key) not in self.offsets:
            shape = free.shape[1:] if self.drop_draws else free.shape
            self.offsets[name, key] = torch.zeros(shape, dtype=free.dtype, device=free.device, requires_grad=True)
        return transform(free + self.offsets[name, key])
