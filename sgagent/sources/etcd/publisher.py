"""Publish a set of definitions, so that readers see all of it or nothing.

What comes or changes is written, what leaves is deleted: in one transaction with the marker, if that fits.
More is written in several, each of which demands that the marker is still the one that announced them;
readers keep what was complete before until the marker says that all is there.
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
from sgagent.sources.etcd.messages import Delete, Header, KeyRange, KeyValue, Put, Unchanged, Write
from sgagent.sources.etcd.publication import Completeness, MalformedMarkerError, Marker, read_marker
from sgagent.sources.etcd.publication_signature import Sign, signature_keys

MOST_WRITES = 127
"""In one transaction, beside the marker: etcd takes 128 operations unless told otherwise."""

MOST_BYTES = 1 << 20
"""In one transaction: etcd takes 1.5 MiB unless told otherwise."""

PATIENCE_SECONDS = 15.0
"""For which a cluster without a leader is waited for."""


class PublishedMeanwhileError(Exception):
    """Say that somebody else published, or is publishing; nothing more was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What stands in the store."""

    marker: Marker | None
    """None where nothing was ever published, or the marker can't be read."""

    marker_revision: int
    """0 where there is no marker."""

    revision: int
    """At which all this was read."""

    items: tuple[KeyValue, ...]
    """The keys that publications write, those that hosts announced apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What is to be written."""

    writes: tuple[Write, ...]
    """In the order of keys."""

    marker: Marker
    """When all is there."""

    begun: Marker | None
    """While it is written; None where one transaction is enough."""

    marker_revision: int
    """Of the marker that must still stand."""

    @property
    def puts(self) -> int:
        """Return how many keys are written."""
        return sum(isinstance(write, Put) for write in self.writes)

    @property
    def deletions(self) -> int:
        """Return how many keys are deleted."""
        return len(self.writes) - self.puts


def read_published(client: Client, layout: KeyLayout) -> Published:
    """Return what stands in the store at one revision.

    Raises:
        TooLargeError: that is more than the limits allow.
        EtcdError: there was no answer.
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
    """Return what has to be written for the store to hold the snapshot.

    Args:
        published: what it holds.
        snapshot: what it is to hold.
        layout: the keys.
        by: who publishes.
        at: seconds since the epoch.
        sign: vouches for it; None has nobody do so.
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
        # Who saw half of a publication that was never ended has to read all anew.
        changed=tuple(layout.relative(write.key) for write in writes) if is_small and is_whole else None,
    )
    return Publication(
        writes=writes,
        marker=marker,
        begun=None if is_small else _begun(marker, published),
        marker_revision=published.marker_revision,
    )


def _begun(marker: Marker, published: Published) -> Marker:
    """Return the marker of a publication that is under way, which names what readers may still take."""
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
            yield Delete(key)
        elif there.get(key) != wanted[key]:
            yield Put(key, wanted[key])


def _size(write: Write) -> int:
    """Return about how many bytes a write takes in a transaction."""
    return len(write.key) + (len(write.value) if isinstance(write, Put) else 0) + 32


def publish(client: Client, publication: Publication, layout: KeyLayout) -> int:
    """Write a publication, and return the revision of the store at which it was complete.

    Raises:
        PublishedMeanwhileError: somebody else published since it was planned.
        EtcdError: the store can't be reached, or refused; what readers take is what was complete before.
    """
    writer = _Writer(client, layout, publication.marker_revision)
    if publication.begun is None:
        return writer.move(publication.marker, publication.writes)
    writer.move(publication.begun, ())
    for batch in batches(publication.writes):
        writer.add(batch)
    return writer.move(publication.marker, ())


def batches(writes: Sequence[Write]) -> Iterator[tuple[Write, ...]]:
    """Go through the writes in portions that a transaction takes."""
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
    """Write while the marker is the one that is expected, over lost connections."""

    def __init__(self, client: Client, layout: KeyLayout, marker_revision: int) -> None:
        self._client = client
        self._layout = layout
        self._marker_revision = marker_revision

    def move(self, marker: Marker, writes: Sequence[Write]) -> int:
        """Write a new marker together with other keys, and return the revision."""
        value = marker.encoded()
        header = self._written([Put(self._layout.meta, value), *writes], value)
        self._marker_revision = header.revision
        return header.revision

    def add(self, writes: Sequence[Write]) -> None:
        """Write keys under the marker that stands; that it is done twice does no harm."""
        self._written(writes, None)

    def _written(self, writes: Sequence[Write], marker: bytes | None) -> Header:
        """Carry out writes in one transaction.

        Whether a transaction was carried out is not known if the connection broke meanwhile: then the marker
        tells, if it was to change.
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
            done = self._found(marker)  # by a try of ours that was thought to be lost
            if done is None:
                raise PublishedMeanwhileError("somebody else has published meanwhile")
            return done

    def _found(self, marker: bytes | None) -> Header | None:
        """Return where the marker stands if it is the one that was to be written."""
        page = self._client.persistently(
            lambda: self._client.read_page(KeyRange(self._layout.meta)), PATIENCE_SECONDS
        )
        if marker is None or not page.items or page.items[0].value != marker:
            return None
        return replace(page.header, revision=page.items[0].mod_revision)
