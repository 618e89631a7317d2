"""Replica of the keys that concern a host: its first read, and the detection of consistent states.

One watch delivers its changes in order, but the changes of several watches interleave. So between the first
and the last key of a publication, the replica passes through states that nobody published. The marker, in the
same transaction, lists the keys to wait for.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sgagent.core.errors import refusal
from sgagent.sources.etcd import messages
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.documents import Interest
from sgagent.sources.etcd.grpc import LESS, CompactedError, EtcdError, StoreTooLargeError
from sgagent.sources.etcd.key_layout import INTERFACES, KeyLayout
from sgagent.sources.etcd.messages import Header, KeyEvent, KeyRange, KeyValue, Range, SizeBudget
from sgagent.sources.etcd.publication import Completeness, Marker, keyspace_lost, read_marker

LEAST_SEEN = 1_000
"""Remembered changes below which the replica does not collect garbage."""


class Condition(enum.Enum):
    """Whether the replica is a published state."""

    SETTLED = "settled"
    """It is."""

    AWAITING = "awaiting"
    """Some changes of a transaction have not arrived yet."""

    PUBLISHING = "publishing"
    """A publisher writes several transactions; the last complete publication stays valid meanwhile."""

    STALE = "stale"
    """A resync is needed: the marker lists no keys, or too many changes are pending to remember."""

    GONE = "gone"
    """The marker was deleted."""


class Replica:
    """A copy of some ranges of the store at one revision, updated by watches."""

    def __init__(self, layout: KeyLayout, marker: KeyValue, revision: int, most_bytes: int) -> None:
        """Start with the marker alone; :meth:`add` adds ranges.

        Args:
            layout: the layout of keys.
            marker: the marker's key.
            revision: the store's revision at which it was read.
            most_bytes: the size limit of all keys together, as :class:`SizeBudget` counts.

        Raises:
            DocumentError: the marker is malformed.
            StoreTooLargeError: the marker exceeds the limit.
        """
        self.values: dict[str, KeyValue] = {}
        """Changed by methods only, because they track its size."""

        self.known_until = {KeyRange(layout.meta): revision}
        """The watched ranges, each with the revision up to which the replica has its changes."""

        self.marker: Marker = read_marker(marker)
        self.marker_revision = marker.mod_revision
        """The revision that wrote the marker."""

        self.layout = layout
        self._by_first = {one.first: one for one in self.known_until}
        self._most_bytes = most_bytes
        self._marker_bytes = messages.weight(marker)
        self._values_bytes = 0
        self._noted_bytes = 0
        self._seen: dict[str, int] = {}
        self._most_seen = LEAST_SEEN
        self._expected: dict[str, int] = {}
        self._ahead = 0
        self._is_stale = False
        self._is_gone = False
        self._refuse_too_much()

    def room(self) -> SizeBudget:
        """Return the remaining size budget."""
        return SizeBudget(self._most_bytes, self._marker_bytes + self._values_bytes)

    def covers(self, key: str) -> bool:
        """Return whether a watched range includes a key."""
        return any(True for _ in self._followed_with(key))

    def add(self, added: KeyRange, items: Iterable[KeyValue], revision: int) -> None:
        """Add a range, a single key or all below a name, with its keys at a revision.

        Raises:
            StoreTooLargeError: all keys together exceed the limit.
        """
        self._hold(items)
        self.known_until[added] = revision
        self._by_first[added.first] = added

    def drop(self, dropped: KeyRange) -> None:
        """Remove a range and its keys."""
        del self.known_until[dropped], self._by_first[dropped.first]
        for key in [key for key in self.values if key in dropped and not self.covers(key)]:
            self._let_go(key)

    def note_progress(self, followed: KeyRange, revision: int) -> None:
        """Record that the replica has all changes of a range up to a revision; ignore a removed range."""
        if followed in self.known_until:
            self.known_until[followed] = max(self.known_until[followed], revision)

    def note(self, event: KeyEvent) -> None:
        """Apply a change; a repeated one has no effect.

        Raises:
            DocumentError: the new marker is malformed.
            StoreTooLargeError: all keys together exceed the limit.
        """
        key, revision = event.item.key, event.item.mod_revision
        if key == self.layout.meta:
            self._note_marker(event)
            return
        before = self.values.get(key)
        known = max(before.mod_revision if before else 0, self._seen.get(key, 0))
        if revision <= known or not self.covers(key):
            return
        is_leased = before is not None and before.lease if event.is_deletion else event.item.lease
        if not is_leased:
            self._ahead = max(self._ahead, revision)
        if event.is_deletion:
            self._let_go(key)
        else:
            self._hold((event.item,))
        self._keep_in_mind(self._seen, key, revision)
        if key in self._expected and self._expected[key] <= revision:
            del self._expected[key]
            self._noted_bytes -= _noted(key)

    @property
    def condition(self) -> Condition:
        """Return whether the replica is a published state."""
        if self._is_gone:
            return Condition.GONE
        if self.marker.state is Completeness.PUBLISHING:
            return Condition.PUBLISHING
        if self._is_stale:
            return Condition.STALE
        if self._expected or self._ahead > self.marker_revision:
            return Condition.AWAITING
        return Condition.SETTLED

    def settle(self) -> None:
        """Drop the remembered changes up to the marker, because all have arrived.

        No marker follows the changes of hosts that announce themselves. Above a threshold, those that every
        watch has delivered are garbage collected.
        """
        seen = {key: revision for key, revision in self._seen.items() if revision > self.marker_revision}
        if len(seen) > self._most_seen:
            seen = {key: revision for key, revision in seen.items() if self._may_come(key, revision)}
            self._most_seen = max(LEAST_SEEN, 2 * len(seen))
        self._seen = seen
        self._noted_bytes = sum(map(_noted, (*self._seen, *self._expected)))

    @property
    def remembered(self) -> int:
        """Return the number of remembered changes."""
        return len(self._seen) + len(self._expected)

    def _hold(self, items: Iterable[KeyValue]) -> None:
        """Add or replace keys.

        Raises:
            StoreTooLargeError: all keys together exceed the limit.
        """
        for item in items:
            before = self.values.get(item.key)
            self.values[item.key] = item
            self._values_bytes += messages.weight(item) - (0 if before is None else messages.weight(before))
        self._refuse_too_much()

    def _let_go(self, key: str) -> None:
        """Remove a key if present."""
        before = self.values.pop(key, None)
        if before is not None:
            self._values_bytes -= messages.weight(before)

    def _refuse_too_much(self) -> None:
        if self._marker_bytes + self._values_bytes > self._most_bytes:
            raise messages.too_large(self._most_bytes)

    def _keep_in_mind(self, notes: dict[str, int], key: str, revision: int) -> None:
        """Remember a key's change; over the size limit, drop all of them and require a resync."""
        if key not in notes:
            self._noted_bytes += _noted(key)
        notes[key] = revision
        if self._noted_bytes > self._most_bytes:
            self._seen, self._expected, self._noted_bytes = {}, {}, 0
            self._is_stale = True

    def _may_come(self, key: str, revision: int) -> bool:
        """Return whether a watch may still deliver a change."""
        return any(self.known_until[followed] < revision for followed in self._followed_with(key))

    def _followed_with(self, key: str) -> Iterator[KeyRange]:
        """Yield the watched ranges that include a key, in time independent of the number of ranges."""
        at = key.find("/")
        while at >= 0:
            followed = self._by_first.get(key[: at + 1])
            if followed is not None and key in followed:
                yield followed
            at = key.find("/", at + 1)
        if (followed := self._by_first.get(key)) is not None:
            yield followed

    def _note_marker(self, event: KeyEvent) -> None:
        revision = event.item.mod_revision
        if revision <= self.marker_revision:
            return
        self._is_gone = event.is_deletion
        self._marker_bytes = messages.weight(event.item)
        self._refuse_too_much()
        self.marker_revision = revision
        if event.is_deletion:
            return
        self.marker = read_marker(event.item)
        if self.marker.state is Completeness.PUBLISHING:
            return
        if self.marker.changed is None:
            self._is_stale = True
            return
        for key in map(self.layout.root.__add__, self.marker.changed):
            before = self.values.get(key)
            known = max(before.mod_revision if before else 0, self._seen.get(key, 0))
            if known < revision and self.covers(key):
                self._keep_in_mind(self._expected, key, revision)


def _noted(key: str) -> int:
    """Return the counted size of a remembered change, in bytes."""
    return messages.KEY_BYTES + len(key)


_TRIES = 3
"""Tries of a read that fails because the store compacts its revision."""


class NothingPublishedError(EtcdError):
    """A store without a marker: nothing was published, or all keys are lost."""


def read_replica(client: Client, layout: KeyLayout, interest: Interest) -> tuple[Header, Replica]:
    """Return the store's header, and all keys of interest of the last complete publication.

    Raises:
        NothingPublishedError: there is no marker.
        DocumentError: the marker is malformed, published keys are missing, or the keys are too large.
        EtcdError: the store did not answer.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            with too_large_refused(layout):
                return _read_at_once(client, layout, interest)
        except CompactedError:
            if not tries_left:
                raise
    raise AssertionError("unreachable")


def extend(client: Client, replica: Replica, interest: Interest, revision: int) -> tuple[KeyRange, ...]:
    """Add the missing ranges of interest and drop the superfluous ones; return the added ranges.

    Raises:
        DocumentError: the keys are too large.
        CompactedError: the store has compacted the revision.
        EtcdError: the store did not answer.
    """
    added: list[KeyRange] = []
    kept = {KeyRange(replica.layout.meta)}
    with too_large_refused(replica.layout):
        while (wanted := kept | interest.wanted(replica.values)) != replica.known_until.keys():
            missing = sorted(wanted - replica.known_until.keys())
            for one, items in client.read_each(missing, revision=revision, room=replica.room()):
                replica.add(one, items, revision)
                added.append(one)
            for one in sorted(replica.known_until.keys() - wanted):
                replica.drop(one)
    return tuple(one for one in dict.fromkeys(added) if one in replica.known_until)


def _read_at_once(client: Client, layout: KeyLayout, interest: Interest) -> tuple[Header, Replica]:
    key = KeyRange(layout.meta)
    page = client.read_page(key)
    revision = page.header.revision
    item, marker = _marker_in(page, layout)
    if marker.state is Completeness.PUBLISHING:
        revision = marker.complete_revision
        if not revision:
            raise NothingPublishedError(f"the first publication under {layout.root} is still being written")
        item, _ = _marker_in(client.read_page(key, revision=revision), layout)
    replica = Replica(layout, item, revision, client.limits.all_bytes)
    extend(client, replica, interest, revision)
    _refuse_losses(client, replica, revision)
    return page.header, replica


def _marker_in(page: Range, layout: KeyLayout) -> tuple[KeyValue, Marker]:
    if not page.items:
        message = f"nothing is published under {layout.root}: there is no key {layout.meta}"
        raise NothingPublishedError(message)
    return page.items[0], read_marker(page.items[0])


def _refuse_losses(client: Client, replica: Replica, revision: int) -> None:
    """Refuse a replica that lacks every interface of interest, if published interfaces are gone.

    A host would take it for "no longer mine", and stand open.

    Raises:
        DocumentError: interfaces are missing.
    """
    layout, published = replica.layout, replica.marker.counts.get(INTERFACES, 0)
    if not published or any(layout.parts(key)[0] == INTERFACES for key in replica.values):
        return
    there = client.count(layout.all_of(INTERFACES), revision=revision)
    if there < published:
        message = f"{published} interfaces were published, and {there} of them are there"
        raise keyspace_lost(layout.meta, message)


@contextmanager
def too_large_refused(layout: KeyLayout) -> Iterator[None]:
    """Refuse a store that holds too much, as documents are that are too large.

    Raises:
        DocumentError: it does.
    """
    try:
        yield
    except StoreTooLargeError as error:
        raise refusal("too_large", f"etcd:{layout.root}", str(error), LESS) from error
