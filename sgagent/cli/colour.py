"""Colour words on a terminal, and nowhere else; what colour says is said in words too."""

from __future__ import annotations

import enum
import os
import sys


class Colour(enum.Enum):
    """The few colours that are used, as the numbers that terminals know."""

    RED = 31
    GREEN = 32
    YELLOW = 33


def painted(text: str, colour: Colour) -> str:
    """Return the text in a colour, if standard output shows any."""
    return f"\x1b[{colour.value}m{text}\x1b[0m" if _shows_colour() else text


def _shows_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
