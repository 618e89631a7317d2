"""The flow log: read logged packets in a thread, enrich and write them, keep the newest, count losses."""

from __future__ import annotations

import contextlib
import enum
import errno
import select
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from sgagent.agent.flowlog.enrichment import (
    Directory,
    Leaves,
    LoggedLeaf,
    have_same_leaves,
    leaves_of,
    make_flow,
    read_head,
)
from sgagent.agent.flowlog.flow import (
    Flow,
    FlowRecord,
    FlowsLeftOut,
    FlowWriter,
    PartlyWrittenError,
    make_writer,
)
from sgagent.agent.state.counter_file import Totals
from sgagent.agent.step import EventLog
from sgagent.core.counter_keys import CounterKey
from sgagent.core.model import Policy, Snapshot
from sgagent.core.policy import SILENT, FlowLogging, ResolvedPolicy
from sgagent.dataplane.nflog import RECEIVE_BYTES, LoggedPacket, read_packets
from sgagent.ports import Clock
from sgagent.settings import Settings


@dataclass(slots=True)
class _Account:
    """The account of one leaf: its packets, and those without a flow."""

    unlogged: int
    """Its total when it was first looked at, and what was found missing since."""

    total: int
    """As of the reading before the newest: what was counted later may be on its way."""


class LossCount:
    """Count packets that the kernel counted but did not log. Not thread-safe.

    The kernel batches logged packets, so the log lags behind the counters. The result therefore never exceeds
    the number of unlogged packets, and reaches it as soon as the counters stop growing.
    """

    def __init__(self) -> None:
        """Start with nothing known."""
        self._accounts: dict[CounterKey, _Account] = {}
        self._is_begun = False

    def begin(self, totals: Totals) -> None:
        """Record where counters begin that are new since the last reckoning, if there was one.

        Args:
            totals: as of that reckoning, and of what began to be counted since.
        """
        if self._is_begun:
            for key, value in totals.items():
                self._accounts.setdefault(key, _Account(value.packets, value.packets))

    def reckon(self, totals: Totals, logged: Counter[CounterKey]) -> Iterator[tuple[CounterKey, int]]:
        """Yield the numbers of unlogged packets found since the last call, by counter.

        Args:
            totals: the newest counters of the leaves that log.
            logged: how many packets of each the kernel has logged so far.
        """
        self._is_begun = True
        self._accounts = {key: account for key, account in self._accounts.items() if key in totals}
        for key, value in totals.items():
            account = self._accounts.get(key)
            if account is None:
                self._accounts[key] = _Account(value.packets, value.packets)
                continue
            missing = account.total - account.unlogged - logged[key]
            account.total = value.packets
            if missing > 0:
                account.unlogged += missing
                yield key, missing


_SEQUENCE_NUMBERS = 1 << 32
_MOST_WAITING = 10_000
"""Entries that wait to be written."""

RECKONED_SECONDS = 1.0
"""Seconds between two calls at least: by then the log has the packets of the first, or they are lost."""

MOST_RECENT = 2_000
"""Dropped flows that are remembered: about two megabytes."""

_MOST_LEFT_OUT = 1_000
"""Rules and defaults for which the number of unlogged packets is kept."""


class Loss(enum.Enum):
    """Why a flow with a verdict is not in the log."""

    LIMITED = "limited"
    """The rate limit of its rule was reached in that second."""

    OVERRUN = "overrun"
    """The kernel logged it, but the socket's buffer was full because the agent read too slowly."""

    UNREADABLE = "unreadable"
    """It was not an IP packet, or its log prefix is unknown."""

    NOT_WRITTEN = "not_written"
    """The agent keeps it in memory but could not write it to the output."""


class FlowLog:
    """Keep the flows that the kernel logs.

    One thread calls :meth:`add`, which also writes. The daemon's loop calls :meth:`follow` and
    :meth:`reckon`. Any thread may read.
    """

    def __init__(
        self,
        clock: Clock,
        log: EventLog,
        *,
        logging: FlowLogging = SILENT,
        writer: FlowWriter | None = None,
        unavailable: str | None = None,
        is_asked_for: bool = False,
    ) -> None:
        """Start with no flows.

        Args:
            clock: for the times of flows.
            log: the agent's log, for write errors.
            logging: which verdicts the kernel logs.
            writer: the output for flows; None keeps them in memory only.
            unavailable: why the kernel logs nothing although the configuration asks for it; None if it does.
            is_asked_for: whether a missing log is a fault to report.
        """
        self._clock = clock
        self._log = log
        self._writer = writer
        self._followed: tuple[ResolvedPolicy | None, Mapping[str, CounterKey] | None] = (None, None)
        self._newest_leaves: Leaves = {}
        self._logging_leaves: Mapping[CounterKey, LoggedLeaf] = {}
        """The leaves of the current table that log, by counter."""

        self._leaves: Leaves = {}
        self._directory = Directory(Snapshot(version=""))
        self._expected = 0
        self._numbered = 0
        self._waiting: list[FlowsLeftOut] = []
        self._write_fault: str | None = None
        self._reckoning = LossCount()
        self._reckoned_at: float | None = None
        self._lock = threading.Lock()
        self._logged: Counter[CounterKey] = Counter()
        self._logged_by_verdict: Counter[Policy] = Counter()
        self._lost: Counter[Loss] = Counter()
        self._missing = 0
        self._left_out: dict[LoggedLeaf, FlowsLeftOut] = {}
        self.logging = logging
        self.unavailable = unavailable
        self._is_asked_for = is_asked_for
        self.begun_at = clock.now()
        """When flow numbers started at 1; identifies this run of the agent."""

        self.ready = threading.Event()
        """Set once the current table is known: until then log prefixes can't be resolved."""

        self.drops: tuple[Flow, ...] = ()
        """The newest flows that were dropped, or would have been in enforce mode; replaced whole."""

    def follow(
        self,
        policy: ResolvedPolicy,
        counters: Mapping[str, CounterKey],
        snapshot: Snapshot | None,
        read_totals: Callable[[], Totals],
    ) -> None:
        """Switch to another table; log messages of the previous one may still arrive.

        Args:
            policy: the enforced policy.
            counters: the keys of its counters, by name.
            snapshot: the definitions, which name addresses.
            read_totals: returns the counters as last read, and new counters at their start.
        """
        if snapshot is not None and snapshot is not self._directory.snapshot:
            self._directory = Directory(snapshot)
        before_policy, before_counters = self._followed
        self._followed = (policy, counters)
        is_known = counters is before_counters or counters == before_counters
        if before_policy is None or not (is_known and have_same_leaves(before_policy, policy)):
            before, self._newest_leaves = self._newest_leaves, leaves_of(policy, counters)
            self._leaves = {**before, **self._newest_leaves}
            logging = (leaf for leaf in self._newest_leaves.values() if leaf.verdict in self.logging.verdicts)
            self._logging_leaves = {leaf.key: leaf for leaf in logging}
            self._reckoning.begin(self._of_logging_leaves(read_totals()))
            self.ready.set()

    def add(self, packets: Iterable[LoggedPacket] = ()) -> None:
        """Add the flows of logged packets, and write all pending entries."""
        flows = list(self._flows(packets))
        dropped = tuple(flow for flow in flows if flow.verdict is Policy.DROP)
        if dropped:
            self.drops = (*self.drops, *dropped)[-MOST_RECENT:]
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if flows or waiting:
            self._write([*flows, *waiting])

    def reckon(self, totals: Totals) -> None:
        """Compute from newer totals how many packets the kernel did not log."""
        now = self._clock.monotonic()
        if self._reckoned_at is not None and now < self._reckoned_at + RECKONED_SECONDS:
            return
        self._reckoned_at = now
        counted = self._of_logging_leaves(totals)
        with self._lock:
            self._logged = Counter({key: count for key, count in self._logged.items() if key in counted})
            for key, packets in self._reckoning.reckon(counted, self._logged):
                self._leave_out(self._logging_leaves[key], packets)
            lost_later = self._lost[Loss.OVERRUN] + self._lost[Loss.UNREADABLE]
            self._lost[Loss.LIMITED] = max(self._lost[Loss.LIMITED], self._missing - lost_later)

    def _of_logging_leaves(self, totals: Totals) -> Totals:
        """Return the totals of the leaves that log."""
        return {key: totals[key] for key in self._logging_leaves if key in totals}

    def fail(self, fault: Exception) -> None:
        """Log that the flow log has stopped because of an exception."""
        self.unavailable = "the agent failed; its log says why"
        self._log.error("flow_log_failed", exc_info=fault)

    @property
    def fault(self) -> str | None:
        """Return the log's fault, for the status."""
        if self._write_fault is not None:
            return f"the flow log is not written: {self._write_fault}"
        if self.unavailable is not None and self._is_asked_for:
            return f"no flow log: {self.unavailable}"
        return None

    def left_out(self) -> tuple[FlowsLeftOut, ...]:
        """Return how many drops the newest list lacks, for each that decides; all since the agent started."""
        with self._lock:
            return tuple(found for found in self._left_out.values() if found.verdict is Policy.DROP)

    def tally(self) -> tuple[Counter[Policy], Counter[Loss]]:
        """Return how many flows there were since the agent started, and how many are not in the log."""
        with self._lock:
            return Counter(self._logged_by_verdict), Counter(self._lost)

    def _flows(self, packets: Iterable[LoggedPacket]) -> Iterator[Flow]:
        """Yield the flows of packets, and count those that are none."""
        leaves, directory = self._leaves, self._directory
        for packet in packets:
            self._count_gap(packet.sequence)
            leaf, head = leaves.get(packet.prefix), read_head(packet.head)
            if leaf is None or head is None:
                self._lose(Loss.UNREADABLE, 1)
                continue
            with self._lock:
                self._logged[leaf.key] += 1
                self._logged_by_verdict[leaf.verdict] += 1
            self._numbered += 1
            now = self._clock.now()
            yield make_flow(packet, head, leaf, directory, number=self._numbered, seen_at=now)

    def _count_gap(self, sequence: int) -> None:
        gap = (sequence - self._expected) % _SEQUENCE_NUMBERS
        self._expected = (sequence + 1) % _SEQUENCE_NUMBERS
        if gap < _SEQUENCE_NUMBERS // 2:
            self._lose(Loss.OVERRUN, gap)

    def _lose(self, loss: Loss, count: int) -> None:
        if count:
            with self._lock:
                self._lost[loss] += count

    def _leave_out(self, leaf: LoggedLeaf, packets: int) -> None:
        """Add packets to those left out, for whatever reason."""
        found = FlowsLeftOut(
            seen_at=self._clock.now(),
            interface=leaf.interface,
            direction=leaf.direction,
            verdict=leaf.verdict,
            mode=leaf.mode,
            decided_by=leaf.decided_by,
            rule_id=leaf.rule_id,
            security_group_id=leaf.security_group_id,
            local=leaf.local,
            left_out=packets,
        )
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(found)
        self._missing += packets
        known = self._left_out.pop(leaf, None)
        self._left_out[leaf] = replace(found, left_out=packets + (known.left_out if known else 0))
        while len(self._left_out) > _MOST_LEFT_OUT:
            del self._left_out[next(iter(self._left_out))]

    def _write(self, entries: list[FlowRecord]) -> None:
        """Write entries; that they can't be written is said once."""
        fault = None
        try:
            if self._writer:
                self._writer.write(entries)
        except OSError as error:
            fault = ": ".join(map(str, filter(None, (error.filename, error.strerror)))) or str(error)
            lost = error.lost if isinstance(error, PartlyWrittenError) else len(entries)
            self._lose(Loss.NOT_WRITTEN, lost)
        if fault and not self._write_fault:
            self._log.error("flow_log_not_written", reason=fault)
        if self._write_fault and not fault:
            self._log.info("flow_log_written_again")
        self._write_fault = fault


_LONGEST_WAIT_MILLISECONDS = 1000
"""For news, before what waits to be written is written without any."""

_LONGEST_END_SECONDS = 5.0
"""For the thread to write what it has taken in; more than its writers wait for a reader."""

_MOST_MESSAGES = 16
"""That are taken in at once: some hundred packets."""

_KERNEL = 0
"""The port of who sends what is read."""


@contextlib.contextmanager
def flows_heard(opened: socket.socket, flow_log: FlowLog) -> Iterator[None]:
    """Read the kernel's packet log in a thread until the context is left; then close the socket.

    Args:
        opened: a socket bound to a group of the kernel's packet log.
        flow_log: receives the packets, in that thread.
    """
    bell, rope = socket.socketpair()
    thread = threading.Thread(target=_receive, args=(opened, bell, flow_log), name="flows", daemon=True)
    with bell, rope, opened:
        thread.start()
        try:
            yield
        finally:
            rope.shutdown(socket.SHUT_RDWR)
            flow_log.ready.set()
            thread.join(_LONGEST_END_SECONDS)


def _receive(opened: socket.socket, bell: socket.socket, flow_log: FlowLog) -> None:
    """Take in until the bell is rung; a fault of ours ends the flow log and nothing else."""
    poll, ready = select.poll(), set[int]()
    for one in (opened, bell):
        poll.register(one, select.POLLIN)
    try:
        flow_log.ready.wait()
        while bell.fileno() not in ready:
            ready = {number for number, _ in poll.poll(_LONGEST_WAIT_MILLISECONDS)}
            flow_log.add(_waiting(opened))
    except Exception as fault:  # noqa: BLE001 - the outermost frame of a thread: the agent enforces all the same
        flow_log.fail(fault)


def _waiting(opened: socket.socket) -> Iterator[LoggedPacket]:
    """Yield the packets that can be read without waiting; the numbers show those that the kernel lost."""
    for _ in range(_MOST_MESSAGES):
        try:
            received, (sender, _) = opened.recvfrom(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
        else:
            if sender == _KERNEL:
                yield from read_packets(received)


class LogKeeper(Protocol):
    """Finds out whether the kernel has a packet log."""

    def allow_log(self, group: int) -> bool:
        """Let plans log to a group, and return whether the kernel can do that."""


class LogOpener(LogKeeper, Protocol):
    """Opens the packet log, too."""

    def open_log(self) -> socket.socket:
        """Listen to the group that plans may log to, and return the socket to read."""


def begin_flow_log(
    settings: Settings, dataplane: LogOpener, clock: Clock, log: EventLog
) -> tuple[Settings, FlowLog, socket.socket | None]:
    """Return the configuration in effect, the flow log, and the socket of the kernel's packet log.

    If the kernel has no packet log, or another program listens to the group, the flow log stays empty. The
    policy is enforced in any case.

    Args:
        settings: the configuration.
        dataplane: opens the kernel's packet log.
        clock: the time.
        log: hears why there is none.
    """
    logging = settings.flow_log.logging
    if not logging.verdicts:
        return settings, FlowLog(clock, log), None
    make = partial(FlowLog, clock, log, is_asked_for=settings.flow_log.is_asked_for)
    opened, reason = None, "the kernel takes no rules that log to a group (nfnetlink_log)"
    try:
        if dataplane.allow_log(logging.group):
            opened = dataplane.open_log()
    except OSError as error:
        reason = f"group {logging.group} of the kernel's packet log: {error.strerror}"
    if opened is None:
        log.warning("flow_log_unavailable", reason=reason)
        return without_flow_log(settings), make(unavailable=reason), None
    return settings, make(logging=logging, writer=make_writer(settings.flow_log)), opened


def in_effect(settings: Settings, dataplane: LogKeeper) -> Settings:
    """Return the configuration as an agent will find it in effect, without listening."""
    logging = settings.flow_log.logging
    if not logging.verdicts or dataplane.allow_log(logging.group):
        return settings
    return without_flow_log(settings)


def without_flow_log(settings: Settings) -> Settings:
    """Return the configuration with the flow log switched off."""
    return replace(settings, flow_log=replace(settings.flow_log, dropped=False, accepted=False))
