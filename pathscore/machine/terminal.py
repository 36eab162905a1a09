"""Output that every terminal can show: `with plain_where_needed():` around whatever prints.

A terminal of another encoding (LC_ALL=C, an old Windows console, a log file) cannot show "×", "φ" or "±". Python then
raises, in the middle of a run. Inside, such characters are written as plain ones.
"""

from __future__ import annotations

import codecs
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PLAIN = {
    **{"×": "x", "·": "*", "−": "-", "–": "-", "—": "-", "±": "+-", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~"},
    **{"…": "...", "→": "->", "←": "<-", "∇": "grad ", "Σ": "sum ", "√": "sqrt", "∂": "d", "‖": "||", "∼": "~"},
    **{
        "∞": "inf",
        "∈": "in",
        "⊂": "subset of",
        "∪": "+",
        "∖": "\\",
        "⟨": "<",
        "⟩": ">",
        "⊙": "*",
        "÷": "/",
        "∝": "~",
        "∫": "int ",
        "Π": "prod ",
        "δ": "delta",
        "\u0304": "_",
    },
    **{"α": "alpha", "β": "beta", "γ": "gamma", "ε": "eps", "η": "eta", "θ": "theta", "λ": "lambda", "μ": "mu"},
    **{"π": "pi", "σ": "sigma", "τ": "tau", "φ": "phi", "ψ": "psi", "ζ": "zeta", "Δ": "Delta", "Φ": "Phi", "χ": "chi"},
    **{"½": "1/2", "⁺": "+", "⁻": "-", "\u0303": "~", "²": "^2", "ᵀ": "^T"},
    **{"█": "#", "▏": "|", "░": ".", "✓": "y", "’": "'", "‘": "'", "“": '"', "”": '"', "′": "'"},
}
"""How a character is written where it cannot be shown. Others lose their accent, or become "?"."""


def plain(text: str) -> str:
    """The text in ASCII."""
    return "".join(char if char.isascii() else PLAIN.get(char) or _base(char) for char in text)


def _base(char: str) -> str:
    """A letter without its accent, a subscript as its digit; "?" for anything else."""
    return unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode() or "?"


def _handler(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


codecs.register_error("pathscore.plain", _handler)


@contextmanager
def plain_where_needed() -> Iterator[None]:
    """Have stdout and stderr write plain characters in place of those that their encoding lacks."""
    streams: list[Any] = [s for s in (sys.stdout, sys.stderr) if hasattr(s, "reconfigure")]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="pathscore.plain")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            if not stream.closed:
                stream.reconfigure(errors=errors)
