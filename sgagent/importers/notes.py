"""Notes on objects that the import changed or left out."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sgagent.core.errors import Origin, printable


class ImportEffect(enum.Enum):
    """The effect of the import on an object; no effect admits more traffic than before."""

    LEFT_OUT = "left out"
    """The native format has no equivalent; the traffic that the object allowed is dropped."""

    NARROWED = "narrowed"
    """The imported object allows less than the original."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One difference from the imported definitions."""

    effect: ImportEffect
    origin: Origin
    """The place of the imported object."""

    subject: str
    """The group, interface or list that it belongs to."""

    message: str
    """The difference and its reason, as a clause without a full stop."""

    def __str__(self) -> str:
        """Return the note on one line, safe to print on a terminal."""
        return printable(f"{self.effect.value}: {self.origin}: {self.subject}: {self.message}")


class Notes:
    """The notes of one import, in the order of their creation."""

    def __init__(self) -> None:
        """Start empty."""
        self._notes: list[Note] = []

    def add(self, effect: ImportEffect, origin: Origin, subject: str, message: str) -> None:
        """Add a note."""
        self._notes.append(Note(effect=effect, origin=origin, subject=subject, message=message))

    def all(self) -> tuple[Note, ...]:
        """Return all notes."""
        return tuple(self._notes)
