"""Debounce changes of documents: read them once no more changes have come for a moment.

A check-out writes many files, and an editor moves the old file away before it writes the new one. Who reads
between two of these changes gets a policy that nobody wrote.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

DEBOUNCE_SECONDS = 0.02
"""How long nothing else must change after a change that is complete."""

MISSING_SECONDS = 0.3
"""The same after a file came into being, or went: its content may be about to follow."""

LONGEST_SECONDS = 0.5
"""How long changes that do not end put off the first of them; changes are enforced within 2 seconds."""


class Debounce:
    """Keep the names that changed and when they are quiet; the watches note, and the source asks."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing to wait for.

        Args:
            monotonic: the clock, in seconds.
        """
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._quiet_at: dict[Hashable, float] = {}
        self._began = 0.0

    def note(self, name: Hashable, seconds: float) -> None:
        """Take in a change; only the newest of a name counts.

        Args:
            name: of what changed.
            seconds: for which nothing else may change before it is read.
        """
        with self._lock:
            now = self._monotonic()
            if not self._quiet_at:
                self._began = now
            self._quiet_at[name] = now + seconds

    def remaining(self) -> float:
        """Return for how many seconds to wait still; with 0 all changes are forgotten, as they are read."""
        with self._lock:
            if not self._quiet_at:
                return 0.0
            due = min(self._began + LONGEST_SECONDS, max(self._quiet_at.values()))
            seconds = max(0.0, due - self._monotonic())
            if not seconds:
                self._quiet_at.clear()
            return seconds
