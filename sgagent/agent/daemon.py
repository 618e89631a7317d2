"""The daemon's loop: reconcile after events, read the counters, publish the status.

Only the loop uses the data plane, since libnftables is not thread-safe. Watches, signal handlers and scrapes
put events into the inbox.
"""

from __future__ import annotations

import gc
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Protocol

from sgagent.agent.control.handlers import CommandHandler
from sgagent.agent.counters import CounterPoller, ObservationLog, ResetLog
from sgagent.agent.doctor import Doctor
from sgagent.agent.drift import DriftWatch
from sgagent.agent.inbox import Inbox, LoopEvent, StopRequest
from sgagent.agent.published_status import PublishedStatus
from sgagent.agent.step import EventLog, FaultLog, Step, StepEnd, StepLog, summary
from sgagent.agent.systemd import ServiceManager
from sgagent.agent.timed_rules import next_edge
from sgagent.agent.verification import Verification
from sgagent.core.errors import ApplierLostError, LinksUnreadableError, SgagentError
from sgagent.core.model import Snapshot
from sgagent.core.retry import RetryDelay
from sgagent.nft.ruleset import Ruleset
from sgagent.ports import Clock, Host, Source

STEPS_BETWEEN_SEARCHES = 2_000
"""Steps between full collections; each collection takes as long as a large step."""


def clean_up(steps: int) -> None:
    """Free the memory that a step leaves cached; every :data:`STEPS_BETWEEN_SEARCHES` steps, cycles too."""
    if steps % STEPS_BETWEEN_SEARCHES:
        gc.freeze()  # a collection that finds nothing to look at takes no time, and frees the caches too
    gc.collect()
    gc.unfreeze()


TICK_SECONDS = 1.0
"""Between readings of the counters and checks of the table for drift."""

FETCH_AGAIN_SECONDS = 30.0
"""Between periodic fetches, in case the watch of the source misses a change."""

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
"""Exponential backoff between steps that the kernel refuses: the first delay, and the limit."""


_SECONDS_PER_RULE, _SECONDS_PER_ADDRESS = 0.005, 0.000_2
"""That a step may take: eight times as long as an idle core takes for 98,000 rules, or 990,000 addresses."""


def longest_step_seconds(snapshot: Snapshot) -> float:
    """Return the seconds that a step with these definitions may take, beside the service's own limits."""
    rules = sum(len(group.rules) for group in snapshot.security_groups)
    groups = (group.member_addresses for group in snapshot.security_groups)
    lists = (entry.entries for entry in snapshot.prefix_lists)
    interfaces = (interface.addresses for interface in snapshot.network_interfaces)
    addresses = sum(map(len, (*groups, *lists, *interfaces)))
    return rules * _SECONDS_PER_RULE + addresses * _SECONDS_PER_ADDRESS


class SessionKeeper(Protocol):
    """Does for live sessions the work that rules can't, a moment at a time."""

    @property
    def is_busy(self) -> bool:
        """Return whether to look again at once, and not only at the next tick."""

    def follow(self, step: Step) -> None:
        """Take note of a step."""

    def poll(self) -> None:
        """Do the pending work, for a moment."""


@dataclass(eq=False, kw_only=True)
class Daemon:
    """Keep the host's policy enforced until a signal stops it; nothing is changed before :meth:`run`."""

    source: Source
    host: Host
    clock: Clock
    commands: CommandHandler
    """Carries out commands, through the reconciler that carries out the steps."""

    poller: CounterPoller
    inbox: Inbox
    service_manager: ServiceManager
    event_log: EventLog
    published: PublishedStatus
    """Shows how the agent is doing."""

    after_first: Callable[[Step], None]
    """Is given the first step that made the table."""

    sessions: tuple[SessionKeeper, ...]
    """Do for live sessions what rules can't."""

    verification: Verification
    """Proves the tables of steps, while it runs."""

    doctor: Doctor
    """Looks for neighbours that bypass or break the policy, while it runs."""

    def __post_init__(self) -> None:
        """Start with nothing done."""
        self.drift = DriftWatch(self.clock, self.event_log, partial(self.inbox.put, LoopEvent.TABLE_CHANGED))
        """Hears, from any thread, who else changes the table."""

        self._reconciler = self.commands.reconciler
        self._step_log = StepLog(self.event_log)
        self._fault_log = FaultLog(self.event_log.error)
        self._observation_log = ObservationLog(self.event_log, self.clock)
        self._reset_log = ResetLog(self.event_log, self.clock)
        self._backoff = RetryDelay(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS)
        self._observed: frozenset[str] = frozenset()
        self._steps = 0
        self._fetched_at = self._ticked_at = 0.0
        self._retry_at = math.inf
        """When to do a step again after one that failed; by the monotonic clock, as those above."""

        self._expiry = math.inf
        """When the next rule ends, or its hours do or begin; in seconds since the epoch."""

        self._step_fault: str | None = None
        self._reading_fault: str | None = None

    def run(self) -> None:
        """Enforce until a signal arrives; the rules stay active after that."""
        with (
            _signals(self.inbox, self._reconciler.stop),
            self.source.watch(partial(self.inbox.put, LoopEvent.SOURCE_CHANGED)),
            self._reconciler.guardrails.watch(partial(self.inbox.put, LoopEvent.SOURCE_CHANGED)),
            self.host.watch(partial(self.inbox.put, LoopEvent.HOST_CHANGED)),
        ):
            if self.poller.damage:
                self.event_log.error("counters_damaged", reason=self.poller.damage)
            self._log_faults()
            self.commands.begin(partial(self._step, fetch=True))
            gc.enable()
            self._tick()
            self.service_manager.ready()
            self.event_log.info("agent_started")
            while True:
                happened = self.inbox.take(self._seconds_to_wait())
                if LoopEvent.APPLIER_LOST in happened:
                    raise ApplierLostError("the process that holds the privilege has ended")
                if LoopEvent.STOP in happened:
                    break
                self._run_once(happened)
            self.service_manager.stopping()
            try:  # leave nothing in force that was not confirmed
                self.commands.end(self._step_for_command)
            except SgagentError as error:  # the next agent goes back
                self.event_log.error("step_failed", reason=str(error))
            self._tick()
        self.event_log.info("agent_stopped", rules="stay in force")

    @property
    def settled_table(self) -> Ruleset | None:
        """Return the table that this agent put into the kernel; None where a step has yet to follow."""
        return self._reconciler.settled_table if self._step_fault is None else None

    def _seconds_to_wait(self) -> float:
        """Return the seconds until the next deadline."""
        if self._busy:
            return 0.0
        due = min(self._ticked_at + TICK_SECONDS, self._retry_at, self._waiting_ends_at)
        return max(0.0, min(due - self.clock.monotonic(), self._expiry - self._latest_time()))

    @property
    def _busy(self) -> tuple[SessionKeeper, ...]:
        """Return who can't wait for the next tick to go on."""
        return tuple(keeper for keeper in self.sessions if keeper.is_busy)

    @property
    def _waiting_ends_at(self) -> float:
        """Return when to go back from a trial, or a held change has waited, by the monotonic clock.

        While a step has to be tried again, that is when to look at a held change, too.
        """
        held = self._reconciler.held_change if self._retry_at == math.inf else None
        ends = (self.commands.deadline, held.terms.deadline if held else None)
        return min((end for end in ends if end is not None), default=math.inf)

    def _latest_time(self) -> float:
        """Return the latest time that is known, by which rules expire.

        The reconciler writes it to the state directory at most once a minute, so that a clock that goes back
        revives no rule.
        """
        return self._reconciler.latest_time().timestamp()

    def _run_once(self, happened: LoopEvent) -> None:
        """Run the loop once."""
        now = self.clock.monotonic()
        is_tick_due = now - self._ticked_at >= TICK_SECONDS
        is_reload = LoopEvent.RELOAD in happened
        if is_reload:
            self.service_manager.reloading()
            self.source.refresh()
            self._begin_reload()
        is_step_due = self._take_due(now)
        if is_reload or LoopEvent.SOURCE_CHANGED in happened or now - self._fetched_at >= FETCH_AGAIN_SECONDS:
            self._try_step(fetch=True)
        elif is_step_due or LoopEvent.HOST_CHANGED in happened:
            self._try_step(fetch=False)
        elif is_tick_due or LoopEvent.TABLE_CHANGED in happened:
            self._try_step(fetch=False, only_on_drift=True)
        self.published.note_verified(self.verification.newest, self.verification.durations)
        if self.inbox.do_jobs(self._step_for_command):
            self.published.note_manual_override(self.commands.manual_override())
        for keeper in self.sessions if is_tick_due else self._busy:
            keeper.poll()
        if is_tick_due:  # what readers ask for meanwhile puts off no look at the table
            self._ticked_at = self.clock.monotonic()
        if is_tick_due or self.inbox.has_readers:
            self._tick()
        if is_reload:
            self.service_manager.ready()

    def _begin_reload(self) -> None:
        self.event_log.info("reload_requested")
        self._step_log.forget_hold()
        self._reconciler.guardrails.refresh()

    def _take_due(self, now: float) -> bool:
        """Return whether time makes a step due: for a retry, the end of a trial or rule, or a name.

        Each end of a rule, and each change of a name, makes one step due.
        """
        is_expiry_due = self._latest_time() >= self._expiry
        if is_expiry_due:
            self._expiry = math.inf  # the step finds the next one; one that fails is tried again
        are_names_changed = self._reconciler.names.run_once(self._reconciler.latest_time)
        return now >= min(self._retry_at, self._waiting_ends_at) or is_expiry_due or are_names_changed

    def _try_step(self, *, fetch: bool, only_on_drift: bool = False) -> None:
        """Do a step; one that fails is logged once and tried again, unless the applier is lost.

        Args:
            fetch: whether to ask the source.
            only_on_drift: whether to do it only if another process changed the table.
        """
        fault, is_retry = None, self._retry_at < math.inf
        try:
            self.commands.expire(self._step)
            if only_on_drift and (self.drift.is_held_back or not self._reconciler.has_drifted()):
                return
            self._step(fetch=fetch)
        except ApplierLostError:
            raise
        except SgagentError as error:
            # Hundreds of links that come or go at once are all there, or gone, for the next step.
            is_over_soon = isinstance(error, LinksUnreadableError) and not is_retry
            fault = None if is_over_soon else str(error)
            self._retry_later()
        self._fault_log.log("step_failed", fault)
        self._step_fault = fault

    def _step_for_command(self, *, fetch: bool = False) -> Step:
        """Do a step for a command; one that fails is tried again.

        Args:
            fetch: whether for a reload, before which the source was refreshed.
        """
        if fetch:
            self._begin_reload()
        try:
            return self._step(fetch=fetch)
        except SgagentError:
            self._retry_later()
            raise

    def _retry_later(self) -> None:
        self._retry_at = self.clock.monotonic() + self._backoff.after_failure()

    def _step(self, *, fetch: bool = False) -> Step:
        """Do one step, and have the resulting table proved; one that the kernel refuses is tried again."""
        began = self._latest_time()
        if fetch:
            self._fetched_at = self.clock.monotonic()
        with self.verification.stepping():
            step = self.drift.follow(self._reconciler.step(fetch=fetch))
            self.verification.follow(step)
            if step.outcome is StepEnd.REFUSED:
                self._retry_later()
            else:
                self._retry_at = math.inf
                self._backoff.after_success()
                self._count_by(step)
            self._publish(step, is_fetched=fetch)
            status = self.published.status
            self._expiry = next_edge(status.expiring, status.recurring, began)  # may be over by now
            if step.is_first_table and step.outcome is StepEnd.APPLIED:
                self.after_first(step)
            for keeper in self.sessions:
                keeper.follow(step)
            self._steps += 1
            clean_up(self._steps)
            self.doctor.follow(step)
        return step

    def _count_by(self, step: Step) -> None:
        """Attribute counters and logged packets to the table that a step left."""
        if step.counters is None:
            return
        self._observed = step.policy.observed if step.policy else frozenset()
        self.poller.follow(step.counters, self._observed)
        if self.published.flow_log is not None and step.policy is not None:
            in_force = self._reconciler.definitions.in_force
            snapshot = in_force.snapshot if in_force else None
            self.published.flow_log.follow(
                step.policy, step.counters, snapshot, lambda: self.poller.counters.totals
            )

    def _publish(self, step: Step, *, is_fetched: bool) -> None:
        """Publish the result of a step, in the log too."""
        self._step_log.log(step)
        self._log_faults()
        self.service_manager.status(summary(step))
        self.published.note_step(step, is_fetched=is_fetched, verified=self.verification.newest)
        self.published.note_contest(is_contested=self.drift.is_contested)
        override = self.commands.manual_override()
        self._step_log.log_hold(override.held)
        self.published.note_manual_override(override)

    def _tick(self) -> None:
        """Read the counters, serve who waits for a reading, and feed the watchdog."""
        self._latest_time()  # kept in case the clock goes back
        self.drift.poll()
        self.published.note_contest(is_contested=self.drift.is_contested)
        names = self._reconciler.names.report()
        self._step_log.log_names(names)
        self.published.note_names(names, self._reconciler.names.failures)
        self.published.note_doctor(self.doctor.newest)
        readers = self.inbox.take_readers()
        self._read_counters()
        for reader in readers:
            reader.set()
        self._log_faults()
        self.service_manager.alive()

    def _read_counters(self) -> None:
        """Read the counters, and publish the totals."""
        self._reading_fault = None
        try:
            self.poller.poll()
        except ApplierLostError:
            raise
        except SgagentError as error:
            self._reading_fault = str(error)
        self._fault_log.log("counters_not_read", self._reading_fault)
        self._reset_log.follow(self.poller.resets)
        self.published.note_resets(self.poller.resets)
        totals, times = self.poller.counters.totals, self.poller.counters.times
        self._observation_log.follow(totals, self._observed)
        if self.published.flow_log is not None:
            self.published.flow_log.reckon(totals)
        self.published.note_totals(totals, times=times, step_fault=self._step_fault, faults=self._faults)

    @property
    def _faults(self) -> tuple[str, ...]:
        """Return the faults of the agent's own files, counting, flow log, log, and metrics' address."""
        of_counters = (self.poller.damage, self.poller.fault, self._reading_fault)
        published = self.published
        of_parts = (one.fault for one in (published.flow_log, published.log_queue, published.serving) if one)
        return (*self._reconciler.state_faults, *(fault for fault in (*of_counters, *of_parts) if fault))

    def _log_faults(self) -> None:
        """Log the faults of the state directory, once."""
        self._fault_log.log("state_damaged", *self._reconciler.state_faults)
        self._fault_log.log("counters_not_kept", self.poller.fault)


@contextmanager
def _signals(inbox: Inbox, stop: StopRequest) -> Iterator[None]:
    """Put signals into the inbox while the context lasts; those that stop also end a wait for the source."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        inbox.put(LoopEvent.RELOAD if number == signal.SIGHUP else LoopEvent.STOP)
        if number != signal.SIGHUP:
            stop.make()

    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
