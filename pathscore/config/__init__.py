"""The configuration of a run: options, the names they accept, files. Nothing here imports torch."""

from pathscore.config.config import (
    COMMON,
    FREE,
    GROUPS,
    LR,
    PYROS,
    SMALL_WIDTH,
    Config,
    by_pattern,
    completed,
    config_class,
)
from pathscore.config.options import FILLED, FRACTION, NOT_NEGATIVE, POSITIVE, Check, between, option, options_of

__all__ = [
    "COMMON",
    "FILLED",
    "FRACTION",
    "FREE",
    "GROUPS",
    "LR",
    "NOT_NEGATIVE",
    "POSITIVE",
    "PYROS",
    "SMALL_WIDTH",
    "Check",
    "Config",
    "between",
    "by_pattern",
    "completed",
    "config_class",
    "option",
    "options_of",
]
