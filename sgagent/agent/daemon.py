"""The daemon's loop: reconcile after events, read the counters, publish the status.

Only the loop uses the data plane, since libnftables is not thread-safe. Watches, signal handlers and scrapes
put events into the inbox.

The loop repairs drift at once. If a process changes the table again and again, immediate repairs would use
all of a processor without an end. The agent then waits between repairs and logs an error. The waits are
short, because the other process's rules are active meanwhile.
"""

from __future__ import annotations

import gc
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from functools import partial
from types import FrameType

from sgagent.agent.clock import RetryDelay
from sgagent.agent.control.handlers import Execution
from sgagent.agent.counters import Counting, ObservationLog
from sgagent.agent.inbox import Inbox, LoopEvent
from sgagent.agent.published_status import Board
from sgagent.agent.step import EventLog, Step, StepEnd, StepLog, Tamperer, summary
from sgagent.agent.systemd import ServiceManager
from sgagent.agent.verification import Verification
from sgagent.core.errors import ApplierLostError, SgagentError
from sgagent.core.policy import ResolvedPolicy
from sgagent.dataplane.generation import RulesetChange
from sgagent.ports import Clock, Host, Source

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


class Daemon:
    """Keep the host's policy enforced until a signal stops it."""

    def __init__(  # noqa: PLR0913 - the parts that it connects, each by its name
        self,
        *,
        source: Source,
        host: Host,
        clock: Clock,
        execution: Execution,
        counting: Counting,
        inbox: Inbox,
        service_manager: ServiceManager,
        log: EventLog,
        board: Board,
        after_first: Callable[[Step], None],
        verification: Verification | None = None,
    ) -> None:
        """Take the parts; nothing is changed before :meth:`run`.

        Args:
            source: where definitions come from.
            host: the links.
            clock: the time.
            execution: carries out orders, through the reconciler that carries out the steps.
            counting: keeps the totals.
            inbox: where events arrive.
            service_manager: who started the agent.
            log: the log.
            board: shows how the agent is doing.
            after_first: is given the first step that made the table.
            verification: proves what steps leave in the kernel, unless that is switched off.
        """
        self._verification = verification
        self._source = source
        self._host = host
        self._clock = clock
        self._execution = execution
        self._reconciler = execution.reconciler
        self._counting = counting
        self._inbox = inbox
        self._service_manager = service_manager
        self._log = log
        self._step_log = StepLog(log)
        self._observation_log = ObservationLog(log, clock)
        self._steps = 0
        self._board = board
        self.drift = DriftWatch(clock, log, partial(inbox.put, LoopEvent.TABLE_CHANGED))
        """Hears, from any thread, who else changes the table."""

        self._after_first = after_first
        self._observed: frozenset[str] = frozenset()
        self._fetched_at = 0.0
        self._ticked_at = 0.0
        self._retry_at: float | None = None
        self._policy: ResolvedPolicy | None = None
        self._expiries: tuple[datetime | None, ...] = ()
        """When rules of the policy in force end, in order."""

        self._expiry: datetime | None = None
        """When the next one ends."""

        self._backoff = RetryDelay(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS)
        self._state_faults: tuple[str, ...] = ()
        self._counter_fault: str | None = None
        self._reading_fault: str | None = None
        self._step_fault: str | None = None

    def run(self) -> None:
        """Enforce until a signal arrives; the rules stay active after that."""
        with (
            _signals(self._inbox),
            self._source.watch(partial(self._inbox.put, LoopEvent.SOURCE_CHANGED)),
            self._host.watch(partial(self._inbox.put, LoopEvent.HOST_CHANGED)),
        ):
            if self._counting.damage:
                self._log.error("counters_damaged", reason=self._counting.damage)
            self._execution.begin(lambda: self._step(fetch=True))
            gc.enable()
            self._reconciler.names.turn(self._reconciler.latest_time)
            self._tick()
            self._service_manager.ready()
            self._log.info("agent_started")
            while True:
                happened = self._inbox.take(self._seconds_to_wait())
                if LoopEvent.APPLIER_LOST in happened:
                    self._log.error("applier_lost", rules="stay in force")
                    raise ApplierLostError("the process that holds the privilege has ended")
                if LoopEvent.STOP in happened:
                    break
                self._turn(happened)
            self._service_manager.stopping()
            self._go_back_before_the_end()
            self._tick()
        self._log.info("agent_stopped", rules="stay in force")

    def _go_back_before_the_end(self) -> None:
        """Leave nothing in force that was not confirmed; what can't be done is left to the next agent."""
        try:
            self._execution.end(self._step_now)
        except SgagentError as error:
            self._log.error("step_failed", reason=str(error))

    def _turn(self, happened: LoopEvent) -> None:
        """Do what one turn of the loop has to do."""
        is_reload = LoopEvent.RELOAD in happened
        if is_reload:
            self._service_manager.reloading()
            self._begin_reload()
        now = self._clock.monotonic()
        is_fetch_due = now - self._fetched_at >= FETCH_AGAIN_SECONDS
        is_retry_due = self._retry_at is not None and now >= self._retry_at
        is_expiry_due = self._expiry is not None and self._reconciler.latest_time() >= self._expiry
        if is_expiry_due:
            self._expiry = None  # the step finds the next one; one that fails is tried again
        are_names_changed = self._reconciler.names.turn(self._reconciler.latest_time)
        is_trial_over = self._execution.deadline is not None and now >= self._execution.deadline
        is_due = LoopEvent.HOST_CHANGED in happened or is_retry_due or is_trial_over
        if is_reload or LoopEvent.SOURCE_CHANGED in happened or is_fetch_due:
            self._try_step(fetch=True)
        elif is_due or is_expiry_due or are_names_changed:
            self._try_step(fetch=False)
        elif LoopEvent.TABLE_CHANGED in happened or self._is_tick_due(now):
            self._try_step(fetch=False, only_on_drift=True)
        if self._inbox.do_jobs(self._step_now):
            self._board.note_standing(self._execution.standing())
        if self._is_tick_due(now) or self._inbox.has_readers:
            self._tick()
        if is_reload:
            self._service_manager.ready()

    def _begin_reload(self) -> None:
        self._log.info("reload_requested")
        self._source.refresh()

    def _is_tick_due(self, now: float) -> bool:
        return now - self._ticked_at >= TICK_SECONDS

    def _seconds_to_wait(self) -> float:
        """Return how long nothing may happen before there is something to do anyway."""
        now = self._clock.monotonic()
        due = self._ticked_at + TICK_SECONDS
        for other in (self._retry_at, self._execution.deadline):
            due = due if other is None else min(due, other)
        left = due - now
        if self._expiry is not None:
            left = min(left, (self._expiry - self._reconciler.latest_time()).total_seconds())
        return max(0.0, left)

    def _try_step(self, *, fetch: bool, only_on_drift: bool = False) -> None:
        """Do a step; one that fails is logged once and tried again.

        Args:
            fetch: whether to ask the source.
            only_on_drift: whether to do it only if another process changed the table.
        """
        fault = None
        try:
            self._execution.expire(self._step_now)
            if only_on_drift and (self.drift.is_held_back or not self._reconciler.has_drifted()):
                return
            self._step(fetch=fetch)
        except SgagentError as error:
            fault = str(error)
            self._retry_later()
        if fault and fault != self._step_fault:
            self._log.error("step_failed", reason=fault)
        self._step_fault = fault

    def _retry_later(self) -> None:
        self._retry_at = self._clock.monotonic() + self._backoff.after_failure()

    def _step_now(self, *, fetch: bool = False) -> Step:
        """Do one step; one that can't be done is tried again.

        Args:
            fetch: whether to fetch from the source, for a reload.
        """
        if fetch:
            self._begin_reload()
        try:
            return self._step(fetch=fetch)
        except SgagentError:
            self._retry_later()
            raise

    def _step(self, *, fetch: bool) -> Step:
        """Do one step, and have what it leaves in the kernel proved."""
        with self._verification.stepping() if self._verification else nullcontext():
            step = self._do_step(fetch=fetch)
            if self._verification:
                self._verification.follow(step)
        return step

    def _do_step(self, *, fetch: bool) -> Step:
        """Do one step and say what came of it; a refusal by the kernel is tried again, ever more rarely."""
        if fetch:
            self._fetched_at = self._clock.monotonic()
        step = self.drift.follow(self._reconciler.step(fetch=fetch))
        if step.counters is not None and step.outcome is not StepEnd.REFUSED:
            self._observed = step.policy.observed if step.policy else frozenset()
            self._counting.follow(step.counters, self._observed)
            self._follow_flows(step)
        if step.outcome is StepEnd.REFUSED:
            self._retry_later()
        else:
            self._retry_at = None
            self._backoff.after_success()
        self._note_expiry(step.policy)
        self._step_log.say(step)
        self._say_faults()
        if step.is_first_table and step.outcome is StepEnd.APPLIED:
            self._after_first(step)
        self._service_manager.status(summary(step))
        self._board.note_step(step, is_fetched=fetch)
        self._board.note_contest(is_contested=self.drift.is_contested)
        self._board.note_standing(self._execution.standing())
        self._steps += 1
        clean_up(self._steps)
        return step

    def _note_expiry(self, policy: ResolvedPolicy | None) -> None:
        """Find when the next rule ends; to look for rules that do is needed for another policy only."""
        if policy is not self._policy:
            self._policy = policy
            self._expiries = tuple(rule.expires for rule in policy.expiring) if policy else ()
        latest = self._reconciler.latest_time()
        self._expiry = next((one for one in self._expiries if one and one > latest), None)

    def _follow_flows(self, step: Step) -> None:
        """Let the flow log know what the table is from now on, and by which names to call addresses."""
        in_force, flow_log = self._reconciler.definitions.in_force, self._board.flow_log
        if flow_log is not None and step.policy is not None and step.counters is not None:
            snapshot = in_force.snapshot if in_force else None
            flow_log.follow(step.policy, step.counters, snapshot, lambda: self._counting.totals)

    def _tick(self) -> None:
        """Read the counters, serve who waits for a reading, and feed the watchdog."""
        self._ticked_at = self._clock.monotonic()
        self._reconciler.latest_time()  # which keeps it, should the clock go back
        self.drift.look()
        self._board.note_contest(is_contested=self.drift.is_contested)
        names = self._reconciler.names.report()
        self._step_log.say_names(names)
        self._board.note_names(names, self._reconciler.names.failures)
        if self._verification:
            self._board.note_verified(self._verification.newest)
        readers = self._inbox.take_readers()
        self._read_counters()
        totals = self._counting.totals
        self._observation_log.follow(totals, self._observed)
        if self._board.flow_log is not None:
            self._board.flow_log.reckon(totals)
        self._board.note_totals(
            totals, times=self._counting.times, step_fault=self._step_fault, faults=self._faults
        )
        for reader in readers:
            reader.set()
        self._say_faults()
        self._service_manager.alive()

    @property
    def _faults(self) -> tuple[str, ...]:
        """Return what is wrong with the agent's own files, its counting, its flow log, and its log."""
        of_counters = (self._counting.damage, self._counting.fault, self._reading_fault)
        of_logs = (log.fault for log in (self._board.flow_log, self._board.log_queue) if log)
        return (*self._reconciler.state_faults, *(fault for fault in (*of_counters, *of_logs) if fault))

    def _read_counters(self) -> None:
        """Read the counters; that they can't be read is logged once."""
        fault = None
        try:
            self._counting.read()
        except SgagentError as error:
            fault = str(error)
        if fault and fault != self._reading_fault:
            self._log.error("counters_not_read", reason=fault)
        self._reading_fault = fault

    def _say_faults(self) -> None:
        """Log what is wrong with the state directory, once."""
        if self._reconciler.state_faults != self._state_faults:
            self._state_faults = self._reconciler.state_faults
            for fault in self._state_faults:
                self._log.error("state_damaged", reason=fault)
        if self._counting.fault != self._counter_fault:
            self._counter_fault = self._counting.fault
            if self._counter_fault:
                self._log.error("counters_not_kept", reason=self._counter_fault)


@contextmanager
def _signals(inbox: Inbox) -> Iterator[None]:
    """Have signals leave word in the inbox, until the context is left."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        inbox.put(LoopEvent.STOP)

    def reload(_number: int, _frame: FrameType | None) -> None:
        inbox.put(LoopEvent.RELOAD)

    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
