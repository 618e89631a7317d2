"""Drift: who changes our table, and backoff of repairs against a process that keeps changing it.

The agent repairs drift at once. If a process changes the table again and again, immediate repairs would use
all of a processor without an end. The agent then waits between repairs and logs an error. The waits are
short, because the other process's rules are active meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from sgagent.agent.step import Step, StepEnd, Tamperer
from sgagent.agent.step_log import EventLog
from sgagent.dataplane.monitor import RulesetChange
from sgagent.ports import Clock

CONTESTED_FROM = 5
"""Repairs within :data:`CONTESTED_SECONDS` without backoff; the next one starts a contest."""

CONTESTED_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 4.0
"""Between repairs in a contest; doubled from the first to the longest."""

REPAIRS_TO_PAUSE = 3.0
"""A pause is at least so many times as long as the repair took: no more than a quarter of a processor goes
into a contest, however large the table."""

UTMOST_PAUSE_SECONDS = 30.0
QUIET_SECONDS = 30.0
"""After which without a repair a contest is over."""


class DriftWatch:
    """Follow the repairs; belongs to the loop, but for what others hear."""

    def __init__(self, clock: Clock, log: EventLog, wake: Callable[[], None]) -> None:
        """Start without any.

        Args:
            clock: the time.
            log: where the alarm goes.
            wake: has the loop look at the table soon; may be called from any thread.
        """
        self._clock = clock
        self._log = log
        self._wake = wake
        self._heard: RulesetChange | None = None
        self._repairs: deque[float] = deque()
        self._pause_seconds: float | None = None
        """Before the next repair but one; None where there is no contest."""

        self._resume_at: float | None = None
        """When the next repair is allowed; None is at once."""

    def hear(self, change: RulesetChange) -> None:
        """Record a change by another process; may be called from any thread."""
        if change.is_of_table:
            self._heard = change
            self._wake()

    @property
    def is_contested(self) -> bool:
        """Return whether another process keeps changing the table."""
        return self._pause_seconds is not None

    @property
    def is_held_back(self) -> bool:
        """Return whether a repair has to wait."""
        return self._resume_at is not None and self._clock.monotonic() < self._resume_at

    def follow(self, step: Step) -> Step:
        """Record a step, and return it with the process whose change made it necessary."""
        if not step.was_drift:
            return step
        step = replace(step, tamperer=self._tamperer())
        if step.outcome is StepEnd.APPLIED:
            self._count(step)
        return step

    def look(self) -> None:
        """End a contest after a quiet period."""
        if self.is_contested and self._clock.monotonic() - self._repairs[-1] >= QUIET_SECONDS:
            self._pause_seconds, self._resume_at = None, None
            self._log.info("drift_calmed", quiet_seconds=QUIET_SECONDS)

    def _tamperer(self) -> Tamperer | None:
        """Return the process that changed the table last, if the kernel named it."""
        heard, self._heard = self._heard, None
        if heard is None or not heard.process_id:
            return None
        return Tamperer(process_id=heard.process_id, process_name=heard.process_name)

    def _count(self, step: Step) -> None:
        """Record a repair; start or continue a contest after too many."""
        now = self._clock.monotonic()
        self._repairs.append(now)
        while now - self._repairs[0] > CONTESTED_SECONDS:
            self._repairs.popleft()
        if self._pause_seconds is None and len(self._repairs) > CONTESTED_FROM:
            self._pause_seconds = FIRST_PAUSE_SECONDS
            self._log.error(
                "drift_contested",
                repairs=len(self._repairs),
                within_seconds=CONTESTED_SECONDS,
                process_id=step.tamperer.process_id if step.tamperer else None,
                process_name=step.tamperer.process_name if step.tamperer else None,
            )
        if self._pause_seconds is not None:
            took = step.compile_seconds + step.apply_seconds
            pause = max(self._pause_seconds, REPAIRS_TO_PAUSE * took)
            self._resume_at = now + min(pause, UTMOST_PAUSE_SECONDS)
            self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
