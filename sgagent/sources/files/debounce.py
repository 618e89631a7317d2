"""Debounce of document changes.

A ``git checkout`` writes many files, and an editor renames the old file before it writes the new one. A read
between two such changes would return a policy that nobody wrote.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

DEBOUNCE_SECONDS = 0.02
"""Quiet time after a complete change."""

MISSING_SECONDS = 0.3
"""Quiet time after the creation or removal of a file, whose content may follow."""

LONGEST_SECONDS = 0.5
"""Maximum delay of a change by debouncing; the agent enforces changes within 2 seconds."""


class Debounce:
    """The changed names, each with the end of its quiet time; watches write it, and the source reads it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start without changes.

        Args:
            monotonic: the clock, in seconds.
        """
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._quiet_at: dict[Hashable, float] = {}
        self._began = 0.0

    def note(self, name: Hashable, seconds: float) -> None:
        """Record a change; it replaces an earlier one of the same name.

        Args:
            name: identifies the changed file.
            seconds: the quiet time before a read.
        """
        with self._lock:
            now = self._monotonic()
            if not self._quiet_at or max(self._quiet_at.values()) <= now:
                self._quiet_at.clear()
                self._began = now
            self._quiet_at[name] = now + seconds

    def remaining(self) -> float:
        """Return the remaining quiet time in seconds; at 0, clear all changes for the caller to read."""
        with self._lock:
            if not self._quiet_at:
                return 0.0
            due = min(self._began + LONGEST_SECONDS, max(self._quiet_at.values()))
            seconds = max(0.0, due - self._monotonic())
            if not seconds:
                self._quiet_at.clear()
            return seconds
