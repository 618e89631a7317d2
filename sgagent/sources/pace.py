"""Decide how long to wait before a server is asked again."""

from __future__ import annotations

from collections.abc import Callable

FIRST_RETRY_SECONDS = 1.0
"""Doubled with each failure. What is waited is a random part of it, so that a fleet that lost its server does
not come back as one."""

LONGEST_RETRY_SECONDS = 60.0
"""Or the usual interval, if that is longer."""

SHORTEST_SECONDS = 0.1
"""Between questions that failed, whatever chance says."""

LONGEST_PUT_OFF_SECONDS = 600.0
"""For which a server can send us away."""

CHANGED_SECONDS = 1.0
"""Between two questions of a long poll when the first brought something new."""


class Pace:
    """Count failures in a row, and say how long to wait."""

    def __init__(self, poll_seconds: float, random: Callable[[], float]) -> None:
        """Start without a failure.

        Args:
            poll_seconds: between questions when all is well.
            random: returns numbers from 0, included, to 1.
        """
        self._poll_seconds = poll_seconds
        self._random = random
        self._failures = 0

    def after_answer(self) -> float:
        """Return how long to wait after an answer: the interval, a tenth more or less."""
        self._failures = 0
        return self._poll_seconds * (0.9 + 0.2 * self._random())

    def after_long_poll(self, *, took: float, wait: float, is_changed: bool) -> float:
        """Return how long to wait after a question that the server was asked to think over.

        Args:
            took: how long the server did.
            wait: how long it was asked to.
            is_changed: whether its answer was new.
        """
        if is_changed:
            self._failures = 0
            return min(CHANGED_SECONDS, self._poll_seconds)
        if took >= wait / 2:
            self._failures = 0
            return 0.0
        return self.after_answer()  # it does not wait for changes, so it is asked as any other

    def after_failure(self, put_off: float = 0.0) -> float:
        """Return how long to wait after a failure.

        Args:
            put_off: what the server asked for.
        """
        longest = max(LONGEST_RETRY_SECONDS, self._poll_seconds)
        limit = min(longest, FIRST_RETRY_SECONDS * 2.0 ** min(self._failures, 32))
        self._failures += 1
        wait = max(SHORTEST_SECONDS, limit * self._random())
        return max(wait, min(put_off, LONGEST_PUT_OFF_SECONDS))
