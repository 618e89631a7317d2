"""Watcher: keeps a replica of the keys of interest up to date, across lost connections.

The caller makes the connections. The replica outlives them, so a new watch continues at the last revision. A
resync is needed only if the store has compacted that revision, or if another cluster answers.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import assert_never

import structlog

from sgagent.sources.etcd.client import Client, Watch
from sgagent.sources.etcd.documents import Interest
from sgagent.sources.etcd.grpc import CompactedError, ConnectionLostError, StoreTooLargeError
from sgagent.sources.etcd.http2 import WakeSignal
from sgagent.sources.etcd.key_layout import KeyLayout
from sgagent.sources.etcd.messages import KeyRange, Range, WatchAnswer
from sgagent.sources.etcd.publication import keyspace_lost
from sgagent.sources.etcd.replica import (
    Condition,
    NothingPublishedError,
    Replica,
    extend,
    read_replica,
    too_large_refused,
)

SETTLE_SECONDS = 1.0
"""How long the changes of one transaction may take to arrive before a resync."""

ALONE_SECONDS = 0.001
"""Debounce interval after a single answer: the changes of one transaction arrive as one answer per range, in
close succession."""

QUIET_SECONDS = 0.05
"""Debounce interval within a burst of changes."""

LONGEST_SECONDS = 0.5
"""Maximum delay of a change by debouncing."""

HEARTBEAT_SECONDS = 30.0
"""Interval of checks that the watch is up to date, with 20 % jitter to spread the load of a fleet."""

LAG_SECONDS = 3.0
"""How long a watch may lag behind a read of the marker."""

UNFINISHED_SECONDS = 60.0
"""After which an unfinished publication is logged."""


@dataclass(slots=True)
class StoreWatcher:
    """Watcher of one store, for one thread; the first :meth:`connect` uses the network."""

    client: Client
    layout: KeyLayout
    interest: Interest
    """Selects the keys; the caller may replace it between two calls of :meth:`wait`."""

    wake_signal: WakeSignal
    """Ends a wait for changes early."""

    _replica: Replica | None = None
    _watch: Watch | None = None
    _cluster_id: int = 0
    _serial: int = 0
    _heartbeat_at: float = 0.0
    _behind_since: float | None = None
    _unsettled_since: float | None = None
    _publishing_since: float | None = None
    _is_unfinished_told: bool = False

    def forget(self) -> None:
        """Drop the replica, so that the next :meth:`connect` resyncs; keep the last serial."""
        self._replica = self._watch = None

    def connect(self) -> Replica:
        """Open the watch, from the last revision if possible, else after a resync; return the replica.

        Raises:
            NothingPublishedError: there is no marker, and this watcher has never seen one.
            DocumentError: the store was restored to an older state, has lost keys, or is too large.
            EtcdError: the store can't be reached.
        """
        self._watch = None
        if self._replica is not None and not self._can_continue(self._replica):
            self._replica = None
        if self._replica is None:
            self._read_again()
        self._begin_watch()
        return self._extended()

    def wait(self) -> Replica | None:
        """Wait for changes.

        Returns:
            The replica once it is a new consistent state; None otherwise, after a heartbeat or a wake-up.

        Raises:
            DocumentError: as for :meth:`connect`.
            EtcdError: the connection is lost; the caller must connect again.
        """
        has_checked = self._check_heartbeat()
        try:
            is_over = has_checked and self.is_current
            has_changed = self._receive_changes(0.0 if is_over else self._seconds_to_wait())
        except (CompactedError, StoreTooLargeError):  # the watch can't continue
            return self._resync()
        is_due = self._unsettled_since is not None or self._publishing_since is not None
        return self._settled() if has_changed or is_due else None

    def check_soon(self) -> None:
        """Make the next call of :meth:`wait` read the marker."""
        self._heartbeat_at = 0.0

    @property
    def is_current(self) -> bool:
        """Return whether the replica holds all that the store is known to have."""
        return self._behind_since is None and self._unsettled_since is None

    def read_added(self) -> Replica | None:
        """Read the ranges that the interest has added; return the replica, or None if it added none.

        While a transaction is incomplete, this resyncs to the last complete publication.

        Raises:
            DocumentError: as for :meth:`connect`.
            EtcdError: the connection is lost.
        """
        known = self._known
        if self.interest.wanted(known.values) <= known.known_until.keys():
            return None
        return self._extended() if known.condition is Condition.SETTLED else self._resync()

    @property
    def _known(self) -> Replica:
        if self._replica is None:
            raise ConnectionLostError("nothing was read yet")
        return self._replica

    @property
    def _watching(self) -> Watch:
        if self._watch is None:
            raise ConnectionLostError("nothing is watched yet")
        return self._watch

    def _can_continue(self, replica: Replica) -> bool:
        """Return whether the store is the same cluster, and not older than the replica."""
        header = self._read_marker().header
        is_newer = header.revision >= max(replica.known_until.values())
        return replica.condition is Condition.SETTLED and header.cluster_id == self._cluster_id and is_newer

    def _read_again(self) -> None:
        """Resync, and refuse an older publication than the last."""
        try:
            header, replica = read_replica(self.client, self.layout, self.interest)
        except NothingPublishedError as error:
            if not self._serial:
                raise
            raise keyspace_lost(self.layout.meta, f"{error}, but there was one before") from error
        serial = replica.marker.serial
        if serial < self._serial:
            message = f"publication {serial} is older than {self._serial}, which this host fetched before"
            raise keyspace_lost(self.layout.meta, message)
        if self._cluster_id not in (0, header.cluster_id):
            _LOG.warning("etcd_cluster_changed", cluster=f"{header.cluster_id:x}", serial=serial)
        self._cluster_id, self._serial, self._replica = header.cluster_id, serial, replica
        self._unsettled_since = self._publishing_since = None
        self._is_unfinished_told = False

    def _begin_watch(self) -> None:
        followed = [(one, until + 1) for one, until in self._known.known_until.items()]
        self._watch = self.client.watch(followed)
        self._behind_since = None
        self._heartbeat_at = _next_heartbeat()

    def _seconds_to_wait(self) -> float:
        due = self._heartbeat_at
        if self._unsettled_since is not None:
            due = min(due, self._unsettled_since + SETTLE_SECONDS)
        if self._publishing_since is not None and not self._is_unfinished_told:
            due = min(due, self._publishing_since + UNFINISHED_SECONDS)
        if self._behind_since is not None:
            due = min(due, self._behind_since + LAG_SECONDS)
        return max(0.0, due - time.monotonic())

    def _receive_changes(self, seconds: float) -> bool:
        """Apply the next answer of the watch, and those of the same burst; return whether anything changed.

        It waits so many seconds for the first one. A complete publication shortens the debouncing, because
        its marker shows that no key is missing.
        """
        published = self._known.marker_revision
        answer = self._watching.receive(seconds, self.wake_signal)
        has_changed = False
        deadline = time.monotonic() + LONGEST_SECONDS
        while answer is not None:
            is_alone = not has_changed
            has_changed |= self._apply(answer)
            if time.monotonic() >= deadline:
                break
            is_newer = self._known.marker_revision > published
            is_alone |= is_newer and self._known.condition is Condition.SETTLED
            answer = self._watching.receive(ALONE_SECONDS if is_alone else QUIET_SECONDS)
        return has_changed

    def _check_heartbeat(self) -> bool:
        """Read the marker at each heartbeat; return whether it was read.

        Raises:
            ConnectionLostError: the watch lags behind it for too long.
        """
        now = time.monotonic()
        if self._behind_since is not None and now >= self._behind_since + LAG_SECONDS:
            raise ConnectionLostError("the watch does not report the newest publication")
        if now < self._heartbeat_at:
            return False
        self._heartbeat_at = _next_heartbeat()
        page = self._read_marker()
        if page.header.cluster_id != self._cluster_id:
            raise ConnectionLostError("another cluster answers")
        newest = max((item.mod_revision for item in page.items), default=0)
        is_behind = newest > self._known.marker_revision
        self._behind_since = (self._behind_since or now) if is_behind else None
        return True

    def _read_marker(self) -> Range:
        """Read the marker's key."""
        with too_large_refused(self.layout):
            return self.client.read_page(KeyRange(self.layout.meta))

    def _apply(self, answer: WatchAnswer) -> bool:
        """Apply an answer of the watch; return whether it has changes."""
        replica, followed = self._known, self._watching.followed
        with too_large_refused(self.layout):
            for event in answer.events:
                replica.note(event)
        if 0 <= answer.watch_id < len(followed) and not answer.is_created:
            until = answer.events[-1].item.mod_revision if answer.events else answer.header.revision
            replica.note_progress(followed[answer.watch_id], until)
        if self._behind_since is not None and answer.events:
            self._behind_since = None
            self._heartbeat_at = time.monotonic() + QUIET_SECONDS
        return bool(answer.events)

    def _settled(self) -> Replica | None:
        """Return the replica if it is consistent; resync if it stays inconsistent."""
        replica, now = self._known, time.monotonic()
        match replica.condition:
            case Condition.SETTLED:
                self._unsettled_since = self._publishing_since = None
                self._is_unfinished_told = False
                self._serial = max(self._serial, replica.marker.serial)
                replica.settle()
                return self._extended()
            case Condition.GONE:
                raise keyspace_lost(self.layout.meta, "the marker of the publication was deleted")
            case Condition.STALE:
                return self._resync()
            case Condition.AWAITING:
                if self._unsettled_since is not None and now >= self._unsettled_since + SETTLE_SECONDS:
                    return self._resync()
                self._unsettled_since = self._unsettled_since or now
            case Condition.PUBLISHING:
                self._unsettled_since = None
                self._publishing_since = self._publishing_since or now
                if now >= self._publishing_since + UNFINISHED_SECONDS and not self._is_unfinished_told:
                    self._is_unfinished_told = True
                    by, at = replica.marker.published_by, replica.marker.published_at
                    _LOG.warning("publication_unfinished", published_by=by, published_at=at)
            case _:
                assert_never(replica.condition)
        return None

    def _extended(self) -> Replica:
        """Return the replica after adding the ranges that its keys refer to."""
        replica, watch = self._known, self._watching
        try:
            added = extend(self.client, replica, self.interest, replica.marker_revision)
        except CompactedError:
            return self._resync()
        for one in added:
            watch.add(one, replica.known_until[one] + 1)
        return replica

    def _resync(self) -> Replica:
        """Resync over the same connection, and open a new watch."""
        self._watching.end()
        self._read_again()
        self._begin_watch()
        return self._known


def _next_heartbeat() -> float:
    spread = random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, and guards no secret
    return time.monotonic() + HEARTBEAT_SECONDS * spread


_LOG = structlog.get_logger(__name__)
