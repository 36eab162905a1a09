"""One gradient step: `SVI`, its optimiser, its parameters and their state, and what the first step refuses."""

from pathscore.svi.svi import SVI

__all__ = ["SVI"]
