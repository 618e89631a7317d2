"""Hold what other threads may read of the daemon: its status, the policy in force, and the totals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from sgagent.agent.choosing.standing import Standing
from sgagent.agent.flows.flowlog import FlowLog
from sgagent.agent.keeping.hittimes import HitTimes
from sgagent.agent.step import Outcome, Step
from sgagent.agent.telling.logqueue import LogQueue
from sgagent.agent.telling.status import Status, status_after
from sgagent.agent.telling.trend import Trend
from sgagent.core.compiling.marks import UNCACHED, EnforcementState
from sgagent.core.kernel.counters import CounterKey
from sgagent.core.policy import ResolvedPolicy
from sgagent.documents import DocumentFile
from sgagent.ports import Clock, CounterValue

LONGEST_WAIT_SECONDS = 1.0
"""For a reading of the counters that a scrape asks for; after that it gets the one before."""

_NO_TIMES: Mapping[CounterKey, HitTimes] = MappingProxyType({})


class Board:
    """Let the loop write, and anybody read; each value is replaced whole."""

    def __init__(
        self,
        clock: Clock,
        ask_for_reading: Callable[[float], bool],
        flow_log: FlowLog | None = None,
        log_queue: LogQueue | None = None,
    ) -> None:
        """Start with nothing known.

        Args:
            clock: tells when things became known.
            ask_for_reading: has the loop read the counters, and waits for so many seconds until it has.
            flow_log: what the kernel tells of judgements, if it is asked to.
            log_queue: what the agent's own log goes through, if it goes through one.
        """
        self.flow_log = flow_log
        """Who was dropped lately; may be read from any thread."""

        self.log_queue = log_queue
        """Counts lines that were dropped; may be read from any thread."""

        self._clock = clock
        self._ask_for_reading = ask_for_reading
        self._status = Status()
        self._policy = ResolvedPolicy()
        self._state = UNCACHED
        self._definitions: tuple[str | None, tuple[DocumentFile, ...]] = (None, ())
        self._totals: Mapping[CounterKey, CounterValue] = {}
        self._times: Mapping[CounterKey, HitTimes] = {}
        self._trend = Trend()
        self._step_fault: str | None = None
        self._faults: tuple[str, ...] = ()
        self._turned_at = clock.monotonic()

    def note_step(self, step: Step, *, is_fetched: bool) -> None:
        """Take in what a step found and did."""
        self._policy = step.policy or ResolvedPolicy()
        self._state = step.state or self._state
        if step.outcome is not Outcome.REFUSED:
            self._definitions = (step.version, step.documents)
        self._status = status_after(self._status, step, is_fetched=is_fetched, now=self._clock.now())

    def note_standing(self, standing: Standing) -> None:
        """Take in what somebody put in force by hand."""
        self._status = replace(self._status, standing=standing)

    def note_contest(self, *, is_contested: bool) -> None:
        """Take in whether someone else changes the table again and again."""
        if self._status.is_drift_contested is not is_contested:
            self._status = replace(self._status, is_drift_contested=is_contested)

    def note_totals(
        self,
        totals: Mapping[CounterKey, CounterValue],
        *,
        times: Mapping[CounterKey, HitTimes] = _NO_TIMES,
        step_fault: str | None = None,
        faults: tuple[str, ...] = (),
    ) -> None:
        """Take in that the loop has turned, and what it found.

        Args:
            totals: what was counted.
            times: since when each is counted, and when it was hit last.
            step_fault: why the last step could not be done.
            faults: what is wrong with the agent's own files and its counting, in words.
        """
        self._totals = totals
        self._times = times
        self._step_fault = step_fault
        self._faults = faults
        self._turned_at = self._clock.monotonic()
        self._trend = self._trend.after(totals, self._turned_at)

    def status(self) -> Status:
        """Return how the agent is doing."""
        return self._status

    def policy(self) -> ResolvedPolicy:
        """Return the policy that is in force, as far as the agent knows; one of nothing where none is."""
        return self._policy

    def definitions(self) -> tuple[str | None, tuple[DocumentFile, ...]]:
        """Return the version of the snapshot that is in force, and what it was read from."""
        return self._definitions

    def state(self) -> EnforcementState:
        """Return under which accepted sessions are remembered, as far as the agent knows."""
        return self._state

    def step_fault(self) -> str | None:
        """Return why the last step could not be done."""
        return self._step_fault

    def faults(self) -> tuple[str, ...]:
        """Return what is wrong with the agent's own files and its counting, in words."""
        return self._faults

    def seconds_since_turn(self) -> float:
        """Return how long ago the loop turned last."""
        return self._clock.monotonic() - self._turned_at

    def times(self) -> Mapping[CounterKey, HitTimes]:
        """Return since when each total is counted and when it last grew, as of the newest totals."""
        return self._times

    def trend(self) -> Trend:
        """Return how fast each total grew in the last hour."""
        return self._trend

    def totals(self) -> Mapping[CounterKey, CounterValue]:
        """Return totals as fresh as can be had in a short time."""
        self._ask_for_reading(LONGEST_WAIT_SECONDS)
        return self._totals
