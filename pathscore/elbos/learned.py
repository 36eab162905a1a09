"""What the estimators of an objective have learned, site by site: `Learned()`, an `nn.ModuleDict` site → estimator.

A site may first come in a later call (a label that is not always given). State that is loaded before it does waits
here, is saved with the rest, and is handed over when the site comes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Learned(nn.ModuleDict):
    """Site → estimator. waiting: the saved state of sites that have not come yet, by its name in `state_dict`."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[str, Tensor] = {}

    def hand_over(self) -> None:
        """Give sites that have come their saved state. Raises: RuntimeError, torch's, where it does not fit."""
        for site in {name.split(".")[0] for name in self.waiting} & set(self.keys()):
            names = [name for name in self.waiting if name.split(".")[0] == site]
            self[site].load_state_dict({name.split(".", 1)[1]: self.waiting.pop(name) for name in names})

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: value for name, value in self.waiting.items()})

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        own = {name: value for name, value in state_dict.items() if name.startswith(prefix)}
        later = {name for name in own if name[len(prefix) :].split(".")[0] not in self}
        self.waiting = {name[len(prefix) :]: own[name].clone() for name in sorted(later)}
        super()._load_from_state_dict({name: v for name, v in own.items() if name not in later}, prefix, *rest)
