"""Hold what other threads may read of the daemon: its status, and the totals."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sgagent.agent.reconciler import Step
from sgagent.agent.status import Status, status_after
from sgagent.core.counters import CounterKey
from sgagent.ports import Clock, CounterValue

LONGEST_WAIT_SECONDS = 1.0
"""For a reading of the counters that a scrape asks for; after that it gets the one before."""


class Board:
    """Let the loop write, and anybody read; each value is replaced whole."""

    def __init__(self, clock: Clock, ask_for_reading: Callable[[float], bool]) -> None:
        """Start with nothing known.

        Args:
            clock: tells when things became known.
            ask_for_reading: has the loop read the counters, and waits for so many seconds until it has.
        """
        self._clock = clock
        self._ask_for_reading = ask_for_reading
        self._status = Status()
        self._totals: Mapping[CounterKey, CounterValue] = {}

    def note_step(self, step: Step, *, is_fetched: bool) -> None:
        """Take in what a step found and did."""
        self._status = status_after(self._status, step, is_fetched=is_fetched, now=self._clock.now())

    def note_totals(self, totals: Mapping[CounterKey, CounterValue]) -> None:
        """Take in new totals."""
        self._totals = totals

    def status(self) -> Status:
        """Return how the agent is doing."""
        return self._status

    def totals(self) -> Mapping[CounterKey, CounterValue]:
        """Return totals as fresh as can be had in a short time."""
        self._ask_for_reading(LONGEST_WAIT_SECONDS)
        return self._totals
