"""Atomic publication of definitions.

The publisher writes the changed keys and deletes the removed ones in one transaction with the marker. If they
do not fit, it first writes a marker with the state ``publishing``, then batches, then the final marker. Each
transaction requires that the marker is unchanged. Hosts keep the last complete publication meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sgagent.core.model import Snapshot
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.grpc import CallRefusedError, ConnectionLostError, EtcdError
from sgagent.sources.etcd.keys import (
    GROUPS,
    INTERFACES,
    PORT_LISTS,
    PREFIX_LISTS,
    PUBLISHED,
    KeyLayout,
    published_keys,
)
from sgagent.sources.etcd.messages import DeleteKey, Header, KeyRange, KeyValue, PutKey, Unchanged, Write
from sgagent.sources.etcd.publication import (
    Completeness,
    MalformedMarkerError,
    Marker,
    Sign,
    read_marker,
    signature_keys,
)

MOST_WRITES = 127
"""Of one transaction, without the marker: etcd's default limit is 128 operations."""

MOST_BYTES = 1 << 20
"""Of one transaction: etcd's default limit is 1.5 MiB."""

PATIENCE_SECONDS = 15.0
"""How long to retry while a cluster has no leader."""


class PublishedMeanwhileError(Exception):
    """A conflict with another publisher; nothing more was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The published content of the store."""

    marker: Marker | None
    """None before the first publication, or if the marker is malformed."""

    marker_revision: int
    """0 without a marker."""

    revision: int
    """The store's revision of this content."""

    items: tuple[KeyValue, ...]
    """All published keys, without those that hosts announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A planned publication."""

    writes: tuple[Write, ...]
    """Sorted by key."""

    marker: Marker
    """The final marker."""

    begun: Marker | None
    """The marker during publication; None if one transaction is enough."""

    marker_revision: int
    """The revision that the present marker must still have."""

    @property
    def puts(self) -> int:
        """Return the number of writes."""
        return sum(isinstance(write, PutKey) for write in self.writes)

    @property
    def deletions(self) -> int:
        """Return the number of deletions."""
        return len(self.writes) - self.puts


def read_published(client: Client, layout: KeyLayout) -> Published:
    """Return the published content of the store at one revision.

    Raises:
        StoreTooLargeError: the content exceeds the limits.
        EtcdError: the store did not answer.
    """
    page = client.read_page(KeyRange(layout.meta))
    revision = page.header.revision
    items, room = list[KeyValue](), client.room()
    for kind in PUBLISHED:
        items.extend(client.read(layout.all_of(kind), revision=revision, room=room)[1])
    item = page.items[0] if page.items else None
    return Published(
        marker=None if item is None else _readable(item),
        marker_revision=0 if item is None else item.mod_revision,
        revision=revision,
        items=tuple(item for item in items if not item.lease),
    )


def _readable(item: KeyValue) -> Marker | None:
    try:
        return read_marker(item.value)
    except MalformedMarkerError:
        return None


def plan_publication(
    published: Published,
    snapshot: Snapshot,
    layout: KeyLayout,
    *,
    by: str,
    at: float,
    sign: Sign | None = None,
) -> Publication:
    """Return the diff between the store and a snapshot.

    Args:
        published: the present content of the store.
        snapshot: the wanted content.
        layout: the layout of keys.
        by: the publisher's name.
        at: seconds since the epoch.
        sign: signs the publication; None publishes without a signature.
    """
    serial = max(published.marker.serial + 1 if published.marker else 1, int(at))
    wanted = published_keys(snapshot, layout)
    if sign is not None:
        wanted |= signature_keys(wanted, layout, serial, sign)
    writes = tuple(_writes(published, wanted))
    is_small = len(writes) <= MOST_WRITES and sum(map(_size, writes)) <= MOST_BYTES
    is_whole = published.marker is not None and published.marker.state is Completeness.COMPLETE
    marker = Marker(
        state=Completeness.COMPLETE,
        serial=serial,
        version=snapshot.version,
        published_by=by,
        published_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)),
        counts={
            GROUPS: len(snapshot.security_groups),
            INTERFACES: len(snapshot.network_interfaces),
            PORT_LISTS: len(snapshot.port_lists),
            PREFIX_LISTS: len(snapshot.prefix_lists),
        },
        # After an unfinished publication, None makes every host resync.
        changed=tuple(layout.relative(write.key) for write in writes) if is_small and is_whole else None,
    )
    return Publication(
        writes=writes,
        marker=marker,
        begun=None if is_small else _begun(marker, published),
        marker_revision=published.marker_revision,
    )


def _begun(marker: Marker, published: Published) -> Marker:
    """Return the marker during a publication; it has the revision of the last complete one."""
    before = published.marker
    if before is None:
        complete = 0
    else:
        complete = published.revision if before.state is Completeness.COMPLETE else before.complete_revision
    return replace(marker, state=Completeness.PUBLISHING, complete_revision=complete)


def _writes(published: Published, wanted: dict[str, bytes]) -> Iterator[Write]:
    there = {item.key: item.value for item in published.items}
    for key in sorted(there.keys() | wanted.keys()):
        if key not in wanted:
            yield DeleteKey(key)
        elif there.get(key) != wanted[key]:
            yield PutKey(key, wanted[key])


def _size(write: Write) -> int:
    """Return the approximate size of a write in a transaction, in bytes."""
    return len(write.key) + (len(write.value) if isinstance(write, PutKey) else 0) + 32


def publish(client: Client, publication: Publication, layout: KeyLayout) -> int:
    """Write a publication, and return the store's revision at which it was complete.

    Raises:
        PublishedMeanwhileError: another publisher has changed the marker since the plan.
        EtcdError: the store can't be reached, or refused; hosts keep the last complete publication.
    """
    writer = _Writer(client, layout, publication.marker_revision)
    if publication.begun is None:
        return writer.move(publication.marker, publication.writes)
    writer.move(publication.begun, ())
    for batch in batches(publication.writes):
        writer.add(batch)
    return writer.move(publication.marker, ())


def batches(writes: Sequence[Write]) -> Iterator[tuple[Write, ...]]:
    """Yield the writes in batches that fit into a transaction."""
    batch: list[Write] = []
    size = 0
    for write in writes:
        if batch and (len(batch) >= MOST_WRITES or size + _size(write) > MOST_BYTES):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(write)
        size += _size(write)
    if batch:
        yield tuple(batch)


class _Writer:
    """Writer with optimistic locking on the marker, and retries after lost connections."""

    def __init__(self, client: Client, layout: KeyLayout, marker_revision: int) -> None:
        self._client = client
        self._layout = layout
        self._marker_revision = marker_revision

    def move(self, marker: Marker, writes: Sequence[Write]) -> int:
        """Write a new marker together with other keys, and return the revision."""
        value = marker.encoded()
        header = self._written([PutKey(self._layout.meta, value), *writes], value)
        self._marker_revision = header.revision
        return header.revision

    def add(self, writes: Sequence[Write]) -> None:
        """Write keys without changing the marker; the transaction is idempotent."""
        self._written(writes, None)

    def _written(self, writes: Sequence[Write], marker: bytes | None) -> Header:
        """Commit one transaction, with retries.

        After a lost connection the outcome is unknown. If the transaction changes the marker, the marker then
        shows whether it was committed.
        """
        condition = Unchanged(self._layout.meta, self._marker_revision)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                header, has_held = self._client.commit([condition], writes)
            except EtcdError as error:
                self._client.close()
                is_passing = isinstance(error, ConnectionLostError) or (
                    isinstance(error, CallRefusedError) and error.is_passing
                )
                if not is_passing or time.monotonic() >= deadline:
                    raise
                done = self._found(marker)
                if done is not None:
                    return done
                continue
            if has_held:
                return header
            done = self._found(marker)  # an earlier try may have been committed
            if done is None:
                raise PublishedMeanwhileError("another publisher has published in the meantime")
            return done

    def _found(self, marker: bytes | None) -> Header | None:
        """Return the revision of the marker if it has the given value."""
        page = self._client.persistently(
            lambda: self._client.read_page(KeyRange(self._layout.meta)), PATIENCE_SECONDS
        )
        if marker is None or not page.items or page.items[0].value != marker:
            return None
        return replace(page.header, revision=page.items[0].mod_revision)
