"""Times and amounts as text for people."""

from __future__ import annotations

from datetime import datetime


def count(number: int, word: str) -> str:
    """Return a number and what is counted, in the right number."""
    return f"{number} {word}{'s' * (number != 1)}"


def clock_time(seconds: float) -> str:
    """Return a time by the clock of this host."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def moment(seconds: float, now: float) -> str:
    """Return a time by the clock of this host, and how long ago it was."""
    return f"{clock_time(seconds)} ({age(max(0.0, now - seconds))})"


def time_left(seconds: float) -> str:
    """Return a time that somebody may have to hurry in: in seconds while these matter."""
    return count(round(seconds), "second") if seconds < _SECONDS_MATTER else age(seconds)


_SECONDS_MATTER = 600.0


def short_age(seconds: float) -> str:
    """Return a time span in its largest whole unit, in few signs: ``7s``, ``41d``."""
    number, unit = age(seconds).split()
    return f"{number}{unit[0]}"


def age(seconds: float) -> str:
    """Return a time span in its largest whole unit."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return count(int(seconds // length), unit)
    return count(int(seconds), "second")
