"""Follow the repairs of a table that other processes change.

The loop repairs drift at once. If a process changes the table again and again, immediate repairs would use
all of a processor without an end. The agent then waits between repairs and logs an error. The waits are
short, because the other process's rules are active meanwhile.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace

from sgagent.agent.step import EventLog, Step, StepEnd, Tamperer
from sgagent.core.retry import RetryDelay
from sgagent.dataplane.generation import RulesetChange
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
    """Follow the repairs; belongs to the loop, except the alarm that other threads read."""

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
        self._tamperer = Tamperer()
        """Who was heard of since the last repair."""

        self._repairs: deque[float] = deque()
        self._backoff = RetryDelay(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._resume_at = -math.inf
        """When the next repair is allowed."""

        self.is_contested = False
        """Whether another process keeps changing the table."""

    def notify(self, change: RulesetChange) -> None:
        """Record a change by another process; may be called from any thread."""
        if change.is_of_table:
            who = Tamperer(process_id=change.process_id, process_name=change.process_name)
            self._tamperer = who if change.process_id else Tamperer()
            self._wake()

    @property
    def is_held_back(self) -> bool:
        """Return whether a repair has to wait."""
        return self._clock.monotonic() < self._resume_at

    def follow(self, step: Step) -> Step:
        """Record a step, and return it with the process whose change made it necessary."""
        if not step.was_drift:
            return step
        tamperer, self._tamperer = self._tamperer, Tamperer()
        if step.outcome is StepEnd.APPLIED:
            self._count(step.compile_seconds + step.apply_seconds, tamperer)
        return replace(step, tamperer=tamperer)

    def poll(self) -> None:
        """End a contest after a quiet period."""
        if self.is_contested and self._clock.monotonic() - self._repairs[-1] >= QUIET_SECONDS:
            self.is_contested, self._resume_at = False, -math.inf
            self._backoff.after_success()
            self._log.info("drift_calmed", quiet_seconds=QUIET_SECONDS)

    def _count(self, repair_seconds: float, who: Tamperer) -> None:
        """Record a repair; start or continue a contest after too many."""
        now = self._clock.monotonic()
        self._repairs.append(now)
        while now - self._repairs[0] > CONTESTED_SECONDS:
            self._repairs.popleft()
        count = len(self._repairs)
        if not self.is_contested and count > CONTESTED_FROM:
            self.is_contested = True
            self._log.error("drift_contested", repairs=count, within_seconds=CONTESTED_SECONDS, **asdict(who))
        if self.is_contested:
            pause = max(self._backoff.after_failure(), REPAIRS_TO_PAUSE * repair_seconds)
            self._resume_at = now + min(pause, UTMOST_PAUSE_SECONDS)
