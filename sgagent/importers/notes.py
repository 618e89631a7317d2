"""Tell what became of each thing that could not be taken over as it is."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sgagent.core.errors import Origin, printable


class ImportEffect(enum.Enum):
    """What the native words make of something; none of these allows more than was allowed."""

    LEFT_OUT = "left out"
    """It has no equal: what it allowed is not allowed."""

    NARROWED = "narrowed"
    """It allows less than it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing that is not what it was."""

    effect: ImportEffect
    origin: Origin
    """Where it stood."""

    subject: str
    """The group, interface or list that it belongs to."""

    message: str
    """What, and why, as a clause without a full stop."""

    def __str__(self) -> str:
        """Return the note on one line, safe to print on a terminal."""
        return printable(f"{self.effect.value}: {self.origin}: {self.subject}: {self.message}")


class Notes:
    """The notes of one import, in the order in which they were made."""

    def __init__(self) -> None:
        """Start without any."""
        self._notes: list[Note] = []

    def add(self, effect: ImportEffect, origin: Origin, subject: str, message: str) -> None:
        """Take a note."""
        self._notes.append(Note(effect=effect, origin=origin, subject=subject, message=message))

    def all(self) -> tuple[Note, ...]:
        """Return them."""
        return tuple(self._notes)
