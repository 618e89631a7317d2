"""Time that passes when a test says so."""

from __future__ import annotations


class FakeClock:
    """Stand still until told otherwise."""

    def __init__(self, now: float = 1_000.0, seconds_of_a_look: float = 0.0) -> None:
        """Start at a time since the epoch, as the monotonic clock, each look at which may take its time."""
        self._now = self._monotonic = now
        self._seconds_of_a_look = seconds_of_a_look

    def now(self) -> float:
        """Return the wall clock."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        self.pass_seconds(self._seconds_of_a_look)
        return self._monotonic

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._now += seconds
        self._monotonic += seconds

    def set_back(self, seconds: float) -> None:
        """Set the wall clock back, as a person or a time server does."""
        self._now -= seconds
