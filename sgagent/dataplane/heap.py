"""Give memory back to the system that a large table took for a moment."""

from __future__ import annotations

import ctypes

LARGE_BYTES = 1 << 18
"""Of a plan, from which on it is worth while."""


def give_back() -> None:
    """Have the C library return what it holds and nobody uses; does nothing where it can't."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
