"""Say how long answers may take that were asked for together.

A store that answers steadily is waited for, also where all of it takes long: over a slow line, or because a
whole fleet asks. Who gives such a one up asks the same again, and makes it worse. One that does not answer is
given up after one time-out, however much it was asked; and one that answers just often enough to be waited
for, after a few. A byte now and then counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.sources.etcd.grpc import TooSlowError

STEP_BYTES = 1 << 20
"""Of answers that are not whole, which count as much as one that is."""


@dataclass(slots=True)
class AnswerDeadline:
    """How long answers may be waited for; what passes while nobody waits is free."""

    each_seconds: float
    """Within which an answer has to come whole, or a step of it."""

    all_seconds: float
    """For all of them together."""

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
