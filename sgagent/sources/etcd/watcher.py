"""Follow what concerns somebody in the store, over lost connections, and say what is to be delivered.

One connection after another is made by whoever calls; what is known outlives them, so that a new one goes on
where the old one broke off. All has to be read anew only if the store forgot the revisions between, or is
another one.
"""

from __future__ import annotations

import random
import time
from typing import assert_never

import structlog

from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.grpc import AnswerTooLargeError, CompactedError, ConnectionLostError
from sgagent.sources.etcd.key_selection import Interest
from sgagent.sources.etcd.keys import KeyLayout
from sgagent.sources.etcd.messages import KeyRange, Range, WatchAnswer
from sgagent.sources.etcd.publication import MalformedMarkerError
from sgagent.sources.etcd.replica import Condition, Replica
from sgagent.sources.etcd.resync import (
    NothingPublishedError,
    extend,
    marker_refused,
    read_replica,
    too_large_refused,
)
from sgagent.sources.etcd.watch_stream import Bell, Watch

SETTLE_SECONDS = 1.0
"""How long changes that belong together may take to arrive one after another."""

ALONE_SECONDS = 0.001
"""For which is waited after one answer to see whether it begins a burst: what hosts write in one transaction
is told range by range, one answer right behind the other."""

QUIET_SECONDS = 0.05
"""For which more of the same burst of changes is waited for before they are delivered."""

LONGEST_SECONDS = 0.5
"""How long a burst may put off its first change."""

HEARTBEAT_SECONDS = 30.0
"""Between looks whether the watch tells all: give or take a fifth, so that hosts don't all ask at once."""

LAG_SECONDS = 3.0
"""How long a watch may be behind what a question shows."""

UNFINISHED_SECONDS = 60.0
"""After which a publication that has not ended is worth a word."""


class Following:
    """What is known of the store, and how it is kept up to date. Belongs to one thread."""

    def __init__(self, client: Client, layout: KeyLayout, interest: Interest, bell: Bell) -> None:
        """Take whom to ask for what; nothing is asked yet.

        Args:
            client: the store.
            layout: the keys.
            interest: which of them.
            bell: ends a wait for changes early.
        """
        self.interest = interest
        """May be replaced between two calls of :meth:`wait`."""

        self._client = client
        self._layout = layout
        self._bell = bell
        self._replica: Replica | None = None
        self._watch: Watch | None = None
        self._cluster_id = 0
        self._serial = 0
        self._heartbeat_at = 0.0
        self._behind_since: float | None = None
        self._unsettled_since: float | None = None
        self._publishing_since: float | None = None
        self._is_unfinished_told = False

    def forget(self) -> None:
        """Know nothing any more but how far publications had come, so that all is read anew."""
        self._replica = self._watch = None

    def connect(self) -> Replica:
        """Begin to follow, where the last connection broke off if that can be; return what is known.

        Raises:
            NothingPublishedError: there is no marker, and there never was one as far as is known.
            DocumentError: the store holds something else than what was published last, or too much.
            EtcdError: it can't be reached.
        """
        self._watch = None
        if self._replica is not None and not self._goes_on():
            self._replica = None
        if self._replica is None:
            self._reread()
        self._begin_watch()
        return self._extended()

    def wait(self) -> Replica | None:
        """Wait for changes, and return what is known once they make sense together.

        Returns:
            None if there is nothing new to be delivered, or the bell rang.

        Raises:
            DocumentError: as :meth:`connect`.
            EtcdError: the connection is lost, or has to be made anew.
        """
        self._look_whether_all_is_told()
        try:
            has_changed = self._hear()
        except (CompactedError, AnswerTooLargeError):  # what was to be told is forgotten, or too much
            return self._afresh()
        is_due = self._unsettled_since is not None or self._publishing_since is not None
        return self._settled() if has_changed or is_due else None

    def look_soon(self) -> None:
        """Have the next call of :meth:`wait` ask what is published."""
        self._heartbeat_at = 0.0

    def look_further(self) -> Replica | None:
        """Read what the interest has come to include; return what is known if anything was.

        While changes are under way all is read anew, as it was complete last.

        Raises:
            DocumentError: with it, all is too large; or the store was set back or lost keys.
            EtcdError: the connection is lost.
        """
        known = self._known
        if self.interest.wanted(known.values) <= known.known_until.keys():
            return None
        return self._extended() if known.condition is Condition.SETTLED else self._afresh()

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

    def _goes_on(self) -> bool:
        """Return whether the store is the one that was followed, and not one from before."""
        page = self._look()
        is_same = page.header.cluster_id == self._cluster_id
        if self._known.condition is not Condition.SETTLED:
            return False
        return is_same and page.header.revision >= max(self._known.known_until.values())

    def _reread(self) -> None:
        """Read all anew, and refuse what is older than what was known.

        Raises:
            DocumentError: the store was set back, or lost keys.
            EtcdError: there was no answer.
        """
        try:
            header, replica = read_replica(self._client, self._layout, self.interest)
        except NothingPublishedError as error:
            if not self._serial:
                raise
            raise marker_refused(self._layout.meta, f"{error}, though there was one") from error
        serial = replica.marker.serial
        if serial < self._serial:
            message = f"publication {serial} is older than {self._serial}, which was followed before"
            raise marker_refused(self._layout.meta, message)
        if self._cluster_id not in (0, header.cluster_id):
            _LOG.warning("etcd_cluster_changed", cluster=f"{header.cluster_id:x}", serial=serial)
        self._cluster_id, self._serial, self._replica = header.cluster_id, serial, replica
        self._unsettled_since = self._publishing_since = None

    def _begin_watch(self) -> None:
        followed = [(one, until + 1) for one, until in self._known.known_until.items()]
        self._watch = self._client.watch(followed)
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

    def _hear(self) -> bool:
        """Take in what the watch tells and what comes in one burst with it; tell whether anything changed.

        A publication that is whole puts an end to that: its marker says that nothing is missing.
        """
        published = self._known.marker_revision
        answer = self._watching.receive(self._seconds_to_wait(), self._bell)
        has_changed = False
        deadline = time.monotonic() + LONGEST_SECONDS
        while answer is not None:
            is_alone = not has_changed
            has_changed |= self._take_in(answer)
            if time.monotonic() >= deadline:
                break
            is_alone |= self._is_whole_since(published)
            answer = self._watching.receive(ALONE_SECONDS if is_alone else QUIET_SECONDS)
        return has_changed

    def _is_whole_since(self, revision: int) -> bool:
        """Return whether something was published after a revision, all of which is known."""
        return self._known.marker_revision > revision and self._known.condition is Condition.SETTLED

    def _look_whether_all_is_told(self) -> None:
        """Ask now and then what is published, and give up a watch that does not tell of it.

        Raises:
            ConnectionLostError: it does not.
        """
        now = time.monotonic()
        if self._behind_since is not None and now >= self._behind_since + LAG_SECONDS:
            raise ConnectionLostError("the watch tells nothing of what was published")
        if now < self._heartbeat_at:
            return
        self._heartbeat_at = _next_heartbeat()
        page = self._look()
        if page.header.cluster_id != self._cluster_id:
            raise ConnectionLostError("another cluster answers")
        newest = max((item.mod_revision for item in page.items), default=0)
        is_behind = newest > self._known.marker_revision
        self._behind_since = (self._behind_since or now) if is_behind else None

    def _look(self) -> Range:
        """Return the marker's key as it is now."""
        with too_large_refused(self._layout):
            return self._client.read_page(KeyRange(self._layout.meta))

    def _take_in(self, answer: WatchAnswer) -> bool:
        """Take in what the watch tells; tell whether it was a change.

        Raises:
            DocumentError: the marker is none any more, or all is too large by now.
        """
        replica, followed = self._known, self._watching.range_of(answer)
        try:
            with too_large_refused(self._layout):
                for event in answer.events:
                    replica.note(event)
        except MalformedMarkerError as error:
            raise marker_refused(self._layout.meta, str(error)) from error
        if followed is not None and not answer.is_created:
            until = answer.events[-1].item.mod_revision if answer.events else answer.header.revision
            replica.note_progress(followed, until)
        if self._behind_since is not None and answer.events:
            self._behind_since = None
            self._heartbeat_at = time.monotonic() + QUIET_SECONDS
        return bool(answer.events)

    def _settled(self) -> Replica | None:
        """Return what is known if it makes sense as it is; read anew if it does not come to that.

        Raises:
            DocumentError: the marker is gone, or what is read anew is refused.
            EtcdError: there was no answer.
        """
        replica, now = self._known, time.monotonic()
        match replica.condition:
            case Condition.SETTLED:
                self._unsettled_since, self._publishing_since = None, None
                self._is_unfinished_told = False
                self._serial = max(self._serial, replica.marker.serial)
                replica.settle()
                return self._extended()
            case Condition.GONE:
                raise marker_refused(self._layout.meta, "the marker of what is published was deleted")
            case Condition.STALE:
                return self._afresh()
            case Condition.AWAITING:
                if self._unsettled_since is not None and now >= self._unsettled_since + SETTLE_SECONDS:
                    return self._afresh()
                self._unsettled_since = self._unsettled_since or now
            case Condition.PUBLISHING:
                self._unsettled_since = None
                self._tell_unfinished(replica, now)
            case _:
                assert_never(replica.condition)
        return None

    def _tell_unfinished(self, replica: Replica, now: float) -> None:
        """Say once that a publication takes long."""
        self._publishing_since = self._publishing_since or now
        if now >= self._publishing_since + UNFINISHED_SECONDS and not self._is_unfinished_told:
            self._is_unfinished_told = True
            marker = replica.marker
            _LOG.warning(
                "publication_unfinished", published_by=marker.published_by, published_at=marker.published_at
            )

    def _extended(self) -> Replica:
        """Return what is known with all that it leads to."""
        replica, watch = self._known, self._watching
        try:
            added = extend(self._client, replica, self.interest, replica.marker_revision)
        except CompactedError:
            return self._afresh()
        for one in added:
            watch.add(one, replica.known_until[one] + 1)
        return replica

    def _afresh(self) -> Replica:
        """Read all anew over the same connection, and follow that."""
        if self._watch is not None:
            self._watch.end()
        self._reread()
        self._begin_watch()
        return self._known


def _next_heartbeat() -> float:
    spread = random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, and guards no secret
    return time.monotonic() + HEARTBEAT_SECONDS * spread


_LOG = structlog.get_logger(__name__)
