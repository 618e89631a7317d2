"""Wait for a burst of changes to settle, so that nobody reads a file between its first and its last byte."""

from __future__ import annotations

from collections.abc import Hashable

QUIET_SECONDS = 0.05
"""How long after a complete change more of the same burst may follow: a check-out writes many files."""

UNSETTLED_SECONDS = 0.3
"""How long a change may take to be completed that looks incomplete: a file that is still open, or that an
editor moved away and is about to write anew."""

LONGEST_SECONDS = 1.0
"""How long a burst may put off its first change; changes are enforced within 2 seconds."""


class Settling:
    """Keep the names that changed, and when they will have settled. Times are monotonic seconds."""

    def __init__(self) -> None:
        """Start with nothing to wait for."""
        self._quiet_at: dict[Hashable, float] = {}
        self._latest = 0.0

    def note(self, name: Hashable, now: float, *, settled: bool) -> None:
        """Take in a change; only the newest of a name counts."""
        if not self._quiet_at:
            self._latest = now + LONGEST_SECONDS
        self._quiet_at[name] = now + (QUIET_SECONDS if settled else UNSETTLED_SECONDS)

    def due(self) -> float | None:
        """Return when all changes will have settled if no other comes; None if there are none."""
        if not self._quiet_at:
            return None
        return min(self._latest, max(self._quiet_at.values()))

    def clear(self) -> None:
        """Forget the changes, as someone has been told of them."""
        self._quiet_at.clear()
