"""Keep what was read of a store, follow its changes, and tell when all of them together make sense.

Each watch tells its changes in order, but several watches are told one after another: between the first and
the last of a publication's keys there are moments that nobody published. The marker, which is written
together with them, says which keys to wait for.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sgagent.documents import Limits
from sgagent.documents.findings import FULL_DOCUMENTS
from sgagent.sources.etcd.grpc import StoreTooLargeError
from sgagent.sources.etcd.keys import KeyLayout
from sgagent.sources.etcd.messages import KeyEvent, KeyRange, KeyValue
from sgagent.sources.etcd.publication import Completeness, Marker, read_marker

KEY_BYTES = 100
"""For which a key counts beside its name and value: about half of what it costs to hold one."""

_AROUND_BYTES = 1 << 20
"""What may stand in a message around a document."""


def largest_message(limits: Limits) -> int:
    """Return how many bytes a message may have: one document fits into it that is as large as is allowed."""
    return limits.document_bytes + _AROUND_BYTES


def weight(item: KeyValue) -> int:
    """Return for how many bytes a key counts with its value."""
    return KEY_BYTES + len(item.key) + len(item.value)


@dataclass(slots=True)
class Room:
    """How much may still be taken in of what is read together."""

    most_bytes: int
    """For all of it."""

    taken_bytes: int = 0

    def take(self, items: Iterable[KeyValue]) -> None:
        """Count keys that have arrived.

        Raises:
            TooLargeError: they are too many, or too large.
        """
        self.taken_bytes += sum(map(weight, items))
        if self.taken_bytes > self.most_bytes:
            raise too_large(self.most_bytes)


def too_large(most_bytes: int) -> StoreTooLargeError:
    """Return the error of keys that come to more than is held."""
    reason = f"the keys with their values come to more than {most_bytes} bytes"
    return StoreTooLargeError(f"{reason}, {FULL_DOCUMENTS} times limits.document_bytes")


LEAST_SEEN = 1_000
"""Changes that are remembered before it is worth looking which of them may come again."""


class Condition(enum.Enum):
    """Whether what is known can be taken for what was published."""

    SETTLED = "settled"
    """It can."""

    AWAITING = "awaiting"
    """Changes are still to come that belong to those seen."""

    PUBLISHING = "publishing"
    """Somebody is writing in several steps; what was complete before counts until that has ended."""

    STALE = "stale"
    """All has to be read anew: so much was written that the marker does not name it, or nobody can keep in
    mind what."""

    GONE = "gone"
    """The marker was deleted."""


class Replica:
    """What concerns somebody, as it stood in the store at one revision and as it changed since."""

    def __init__(
        self,
        layout: KeyLayout,
        *,
        marker: KeyValue,
        items: Iterable[KeyValue],
        ranges: Iterable[KeyRange],
        revision: int,
        most_bytes: int,
    ) -> None:
        """Take what was read.

        Args:
            layout: the keys.
            marker: the marker's key.
            items: all other keys, in all of the ranges.
            ranges: what was read, the marker apart.
            revision: of the store, at which all this was read.
            most_bytes: that all keys may hold together, as a room counts them.

        Raises:
            MalformedMarkerError: the marker is none.
            TooLargeError: they hold more.
        """
        self.values: dict[str, KeyValue] = {}
        """Is changed by methods only, as they count what it holds."""

        self.known_until: dict[KeyRange, int] = dict.fromkeys([KeyRange(layout.meta), *ranges], revision)
        """What is followed, and the revision up to which its changes are known."""

        self.marker: Marker = read_marker(marker.value)
        self.marker_revision = marker.mod_revision
        """At which the marker was written."""

        self.layout = layout
        self._by_first = {one.first: one for one in self.known_until}
        self._most_bytes = most_bytes
        self._marker_bytes = weight(marker)
        self._values_bytes = 0
        self._noted_bytes = 0
        self._seen: dict[str, int] = {}
        self._most_seen = LEAST_SEEN
        self._expected: dict[str, int] = {}
        self._ahead = 0
        self._is_stale = False
        self._is_gone = False
        self._hold(items)

    def room(self) -> Room:
        """Return how much more may be read."""
        return Room(self._most_bytes, self._marker_bytes + self._values_bytes)

    def covers(self, key: str) -> bool:
        """Return whether a key is followed."""
        return any(True for _ in self._followed_with(key))

    def add(self, added: KeyRange, items: Iterable[KeyValue], revision: int) -> None:
        """Follow another range, all of whose keys were read at a revision: a key, or all below a name.

        Raises:
            TooLargeError: they are too much beside the others.
        """
        self._hold(items)
        self.known_until[added] = revision
        self._by_first[added.first] = added

    def drop(self, dropped: KeyRange) -> None:
        """Follow a range no longer, and forget what was in it."""
        del self.known_until[dropped], self._by_first[dropped.first]
        for key in [key for key in self.values if key in dropped and not self.covers(key)]:
            self._let_go(key)

    def note_progress(self, followed: KeyRange, revision: int) -> None:
        """Take in that all changes of a range up to a revision are known, if it is still followed."""
        if followed in self.known_until:
            self.known_until[followed] = max(self.known_until[followed], revision)

    def note(self, event: KeyEvent) -> None:
        """Take in a change; one that was taken in before changes nothing.

        Raises:
            MalformedMarkerError: the marker is none any more.
            TooLargeError: with it, all is too much.
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
        """Return whether what is known can be taken."""
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
        """Forget what was only kept to tell whether all changes have arrived, as they have.

        Hosts that come and go write nothing that a marker follows. Once there is much of that, what no watch
        can tell again is forgotten, too.
        """
        self._seen = {
            key: revision for key, revision in self._seen.items() if revision > self.marker_revision
        }
        if len(self._seen) > self._most_seen:
            self._seen = {
                key: revision for key, revision in self._seen.items() if self._may_come(key, revision)
            }
            self._most_seen = max(LEAST_SEEN, 2 * len(self._seen))
        self._noted_bytes = sum(map(_noted, (*self._seen, *self._expected)))

    @property
    def remembered(self) -> int:
        """Return how many changes are kept in mind in case they come again."""
        return len(self._seen) + len(self._expected)

    def _hold(self, items: Iterable[KeyValue]) -> None:
        """Hold keys from now on.

        Raises:
            TooLargeError: there is no room for all of them.
        """
        for item in items:
            before = self.values.get(item.key)
            self.values[item.key] = item
            self._values_bytes += weight(item) - (0 if before is None else weight(before))
        self._refuse_too_much()

    def _let_go(self, key: str) -> None:
        """Hold a key no longer, if it was held."""
        before = self.values.pop(key, None)
        if before is not None:
            self._values_bytes -= weight(before)

    def _refuse_too_much(self) -> None:
        if self._marker_bytes + self._values_bytes > self._most_bytes:
            raise too_large(self._most_bytes)

    def _keep_in_mind(self, notes: dict[str, int], key: str, revision: int) -> None:
        """Keep a key's change in mind; where that comes to too much, none, so that all is read anew."""
        if key not in notes:
            self._noted_bytes += _noted(key)
        notes[key] = revision
        if self._noted_bytes > self._most_bytes:
            self._seen, self._expected, self._noted_bytes = {}, {}, 0
            self._is_stale = True

    def _may_come(self, key: str, revision: int) -> bool:
        """Return whether some watch has yet to tell of a change."""
        return any(self.known_until[followed] < revision for followed in self._followed_with(key))

    def _followed_with(self, key: str) -> Iterator[KeyRange]:
        """Go through the ranges that are followed and hold a key, of which there may be very many others."""
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
        self._marker_bytes = weight(event.item)
        self._refuse_too_much()
        self.marker_revision = revision
        if event.is_deletion:
            return
        self.marker = read_marker(event.item.value)
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
    """Return for how many bytes a change of a key counts that is kept in mind."""
    return KEY_BYTES + len(key)
