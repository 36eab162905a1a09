"""The configuration of a run: options, the names they accept, files. Nothing here imports torch."""

from pathscore.config.config import FREE, GROUPS, OPTIONS, SMALL_WIDTH, Config

__all__ = ["FREE", "GROUPS", "OPTIONS", "SMALL_WIDTH", "Config"]
