"""Exponential backoff: how long to wait before the next try."""

from __future__ import annotations


class RetryDelay:
    """Delays that double from the first to the longest, until a try succeeds."""

    def __init__(self, first: float, longest: float) -> None:
        """Take both in seconds."""
        self._first, self._longest = first, longest
        self._next = first

    def after_failure(self) -> float:
        """Return how many seconds to wait before the next try."""
        delay, self._next = self._next, min(2 * self._next, self._longest)
        return delay

    def after_success(self) -> None:
        """Begin with the first delay again."""
        self._next = self._first
