"""Deadlines of answers to concurrent requests.

Steady progress extends the deadline, because a slow line or the load of a fleet can make a large answer take
long, and a retry would only add load. A store without progress times out once for all requests together. A
store with little progress times out after a few timeouts. Only complete answers, or steps of a fixed size,
count as progress.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.sources.etcd.grpc import TooSlowError

STEP_BYTES = 1 << 20
"""Bytes of an incomplete answer that count as progress, like a complete answer."""


@dataclass(slots=True)
class AnswerDeadline:
    """The time budget of concurrent requests; only time spent waiting counts."""

    each_seconds: float
    """Timeout of one answer, or of one step of progress."""

    all_seconds: float
    """Timeout of all answers together."""

    waited_seconds: float = 0.0

    def wait(self, now: float, received: int) -> Wait:
        """Begin to wait for another answer.

        Args:
            now: by the monotonic clock.
            received: how many bytes have come so far.
        """
        return Wait(self, now, now, received)


@dataclass(slots=True)
class Wait:
    """A wait for one answer."""

    _allowance: AnswerDeadline
    _begun_at: float
    _moved_at: float
    """When it began, or the last step came."""

    _received: int
    """By then."""

    def deadline(self, now: float, received: int) -> float:
        """Return until when the answer or another step of it has to come.

        Raises:
            TooSlowError: that is over.
        """
        allowance = self._allowance
        if received >= self._received + STEP_BYTES:
            self._moved_at, self._received = now, received
        end_of_this = self._moved_at + allowance.each_seconds
        if now >= end_of_this:
            raise TooSlowError(f"no answer within {allowance.each_seconds:g} seconds")
        end_of_all = self._begun_at + allowance.all_seconds - allowance.waited_seconds
        if now >= end_of_all:
            raise TooSlowError(f"not all answers within {allowance.all_seconds:g} seconds")
        return min(end_of_this, end_of_all)

    def end(self, now: float) -> None:
        """Count what was waited."""
        self._allowance.waited_seconds += now - self._begun_at
