"""Resync: a consistent read of all ranges of interest at one revision of the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sgagent.core.errors import DocumentError, Origin, Problem, Severity
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.grpc import LESS, CompactedError, EtcdError, StoreTooLargeError
from sgagent.sources.etcd.key_selection import Interest
from sgagent.sources.etcd.keys import INTERFACES, KeyLayout
from sgagent.sources.etcd.messages import Header, KeyRange, KeyValue, Range
from sgagent.sources.etcd.publication import Completeness, MalformedMarkerError, Marker, read_marker
from sgagent.sources.etcd.replica import Replica

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
    with too_large_refused(replica.layout):
        return _extend(client, replica, interest, revision)


def _extend(client: Client, replica: Replica, interest: Interest, revision: int) -> tuple[KeyRange, ...]:
    added: list[KeyRange] = []
    kept = {KeyRange(replica.layout.meta)}
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
    header, revision = page.header, page.header.revision
    marker = _only(page, layout)
    if _read(marker).state is Completeness.PUBLISHING:
        revision = _read(marker).complete_revision
        if not revision:
            raise NothingPublishedError(f"the first publication under {layout.root} is still being written")
        marker = _only(client.read_page(key, revision=revision), layout)
    most_bytes = client.limits.all_bytes
    replica = Replica(layout, marker=marker, items=(), ranges=(), revision=revision, most_bytes=most_bytes)
    extend(client, replica, interest, revision)
    _refuse_losses(client, replica, revision)
    return header, replica


def _only(page: Range, layout: KeyLayout) -> KeyValue:
    if not page.items:
        raise NothingPublishedError(
            f"nothing is published under {layout.root}: there is no key {layout.meta}"
        )
    return page.items[0]


def _read(marker: KeyValue) -> Marker:
    try:
        return read_marker(marker.value)
    except MalformedMarkerError as error:
        raise marker_refused(marker.key, str(error)) from error


def _refuse_losses(client: Client, replica: Replica, revision: int) -> None:
    """Refuse what lacks every interface of interest, if interfaces are gone that were published.

    A host would take it for "no longer mine", and stand open.

    Raises:
        DocumentError: interfaces are missing.
    """
    layout, published = replica.layout, replica.marker.counts.get(INTERFACES, 0)
    if not published or any(layout.parts(key)[0] == INTERFACES for key in replica.values):
        return
    there = client.count(layout.all_of(INTERFACES), revision=revision)
    if there < published:
        raise marker_refused(
            layout.meta, f"{published} interfaces were published, and {there} of them are there"
        )


def marker_refused(key: str, message: str) -> DocumentError:
    """Return the refusal of what the store holds as a whole."""
    remedy = "restore the store, or publish again with 'sgagent publish'"
    return _refused("keyspace_lost", key, message, remedy)


@contextmanager
def too_large_refused(layout: KeyLayout) -> Iterator[None]:
    """Refuse a store that holds too much, as documents are that are too large.

    Raises:
        DocumentError: it does.
    """
    try:
        yield
    except StoreTooLargeError as error:
        raise _refused("too_large", layout.root, str(error), LESS) from error


def _refused(code: str, key: str, message: str, remedy: str) -> DocumentError:
    origin = Origin(file=f"etcd:{key}")
    problem = Problem(severity=Severity.ERROR, code=code, origin=origin, message=message, remedy=remedy)
    return DocumentError([problem])
