"""Atomic publication of definitions, with the marker of a publication and its signature.

The publisher writes the changed keys and deletes the removed ones in one transaction with the marker. If they
do not fit, it first writes a marker with the state ``publishing``, then batches, then the final marker. Each
transaction requires that the marker is unchanged. Hosts keep the last complete publication meanwhile.

One signature covers all published keys: a manifest of :mod:`sgagent.signatures`, with relative keys as names.
A host reads only some keys. It compares these with the manifest and detects missing ones. So an attacker with
write access to the store can withhold a publication, but not change one.
"""

from __future__ import annotations

import enum
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from sgagent.core.errors import DocumentError, Origin, Problem, refusal
from sgagent.core.model import Snapshot
from sgagent.documents.writer import as_json
from sgagent.json_model import UNREADABLE, from_json, to_json
from sgagent.signatures import SignatureFile, Signed, check_part
from sgagent.sources.etcd import key_layout
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.documents import Composed, Interest
from sgagent.sources.etcd.grpc import EtcdError
from sgagent.sources.etcd.key_layout import KeyLayout, Values, published_keys
from sgagent.sources.etcd.messages import DeleteKey, KeyRange, KeyValue, PutKey, Unchanged, Write
from sgagent.sources.verified_parse import SignaturePolicy

FORMAT = 1


class Completeness(enum.Enum):
    """Whether hosts may use the published keys."""

    COMPLETE = "complete"
    PUBLISHING = "publishing"
    """A publisher is writing; hosts keep the last complete publication."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """The marker of a publication."""

    state: Completeness
    serial: int
    """Grows with each publication, also after the loss of a cluster."""

    version: str
    """Of the whole snapshot."""

    published_by: str
    published_at: str
    """In UTC, like ``2026-01-31T12:00:00Z``."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """Number of keys of each kind; all 0 for empty definitions."""

    changed: tuple[str, ...] | None = None
    """The relative keys written or deleted in the marker's transaction; None makes hosts resync."""

    complete_revision: int = 0
    """While publishing: the store's revision of the last complete publication; 0 for none."""

    def encoded(self) -> bytes:
        """Return the value of the key."""
        fields = {"format": FORMAT, **to_json(self)}
        for name in ("changed", "complete_revision"):
            if fields[name] in (None, 0):
                del fields[name]
        return as_json(fields)


def read_marker(item: KeyValue) -> Marker:
    """Decode the marker's key.

    Raises:
        DocumentError: the marker is malformed, or of another version.
    """
    try:
        return from_json(Marker, json.loads(item.value), FORMAT)
    except UNREADABLE as error:
        raise keyspace_lost(item.key, f"not a marker of a publication: {error}") from error


def keyspace_lost(key: str, message: str) -> DocumentError:
    """Return the refusal of the store's content as a whole."""
    remedy = "restore the store, or publish again with 'sgagent publish'"
    return refusal("keyspace_lost", f"etcd:{key}", message, remedy)


PART_BYTES = 512 << 10
"""Size of one part of a signature: etcd limits values, and transactions, to 1.5 MiB."""

Contents = Mapping[str, bytes]
Sign = Callable[[Contents, int], SignatureFile]
"""Signs contents by name, with a serial."""


def signature_keys(contents: Contents, layout: KeyLayout, serial: int, sign: Sign) -> dict[str, bytes]:
    """Return the keys and values of the signature of published keys."""
    named = {layout.relative(key): value for key, value in contents.items()}
    text = sign(named, serial).render().encode()
    parts = (text[at : at + PART_BYTES] for at in range(0, len(text), PART_BYTES))
    return {layout.key(key_layout.SIGNATURE, f"{number:04}"): part for number, part in enumerate(parts)}


def signature_in(items: Iterable[KeyValue], layout: KeyLayout) -> bytes | None:
    """Return the signature in a set of keys; None if there is none."""
    parts = {item.key: item.value for item in items if layout.parts(item.key)[0] == key_layout.SIGNATURE}
    return b"".join(parts[key] for key in sorted(parts)) if parts else None


@dataclass(frozen=True, slots=True)
class SignedInterest:
    """An interest with the keys of the signature added."""

    inner: Interest
    layout: KeyLayout

    def wanted(self, values: Values) -> frozenset[KeyRange]:
        """Return the ranges to read, including the signature."""
        return self.inner.wanted(values) | {self.layout.all_of(key_layout.SIGNATURE)}

    def documents(self, values: Values) -> Composed:
        """Return the documents; the signature is not one."""
        return self.inner.documents(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedContent:
    """The verified keys."""

    values: Values
    signed: Signed | None = None
    """The verified signature; None if no keys are pinned, or if an optional signature is missing."""

    problems: tuple[Problem, ...] = ()
    """Warnings."""


def verify_content(
    values: Values, is_read: Callable[[str], bool], layout: KeyLayout, signature_policy: SignaturePolicy
) -> VerifiedContent:
    """Verify the signature of the read keys; ignore its age.

    Args:
        values: the read keys.
        is_read: returns whether the read ranges cover a key, so that a signed key must be present.
        layout: the layout of keys.
        signature_policy: the signature policy.

    Raises:
        DocumentError: no pinned key signed the read keys.
    """
    if not signature_policy.wants_signature:
        return VerifiedContent(values=values)
    place = signature_place(layout)
    signature = signature_in(values.values(), layout)
    if signature is None:
        return VerifiedContent(values=values, problems=(signature_policy.missing(place),))
    kinds = {key: layout.parts(key)[0] for key in values}
    # A host announces itself as a member under a lease, without a signature.
    kept = {key: item for key, item in values.items() if kinds[key] != key_layout.MEMBERS or not item.lease}
    named = (
        item
        for key, item in kept.items()
        if kinds[key] in key_layout.PUBLISHED and kinds[key] != key_layout.SIGNATURE
    )
    contents = {layout.relative(item.key): item.value for item in named}
    signed = signature_policy.verify(
        signature,
        place,
        lambda manifest: check_part(manifest, contents, lambda name: is_read(layout.root + name)),
        lambda name: f"etcd:{layout.root}{name}",
    )
    if len(kept) == len(values):
        return VerifiedContent(values=kept, signed=signed)
    message = f"unsigned members that hosts announced are left out: {len(values) - len(kept)}"
    remedy = "publish and sign the members; or pin no key, and trust everybody with write access"
    members = Origin(file=f"etcd:{layout.key(key_layout.MEMBERS)}")
    warning = Problem.warning(members, "member_unsigned", None, message, remedy)
    return VerifiedContent(values=kept, signed=signed, problems=(warning,))


def signature_place(layout: KeyLayout) -> str:
    """Return the place of the signature, for messages."""
    return f"etcd:{layout.key(key_layout.SIGNATURE)}"


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
    for kind in key_layout.PUBLISHED:
        items.extend(client.read(layout.all_of(kind), revision=revision, room=room)[1])
    marker, marker_revision = None, 0
    for item in page.items:
        marker_revision = item.mod_revision
        with suppress(DocumentError):
            marker = read_marker(item)
    kept = tuple(item for item in items if not item.lease)
    return Published(marker=marker, marker_revision=marker_revision, revision=revision, items=kept)


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
    before = published.marker
    serial = max(before.serial + 1 if before else 1, int(at))
    wanted = published_keys(snapshot, layout)
    if sign is not None:
        wanted |= signature_keys(wanted, layout, serial, sign)
    writes = tuple(_writes(published, wanted))
    is_small = len(writes) <= MOST_WRITES and sum(map(_size, writes)) <= MOST_BYTES
    is_whole = before is not None and before.state is Completeness.COMPLETE
    marker = Marker(
        state=Completeness.COMPLETE,
        serial=serial,
        version=snapshot.version,
        published_by=by,
        published_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)),
        counts={
            key_layout.GROUPS: len(snapshot.security_groups),
            key_layout.INTERFACES: len(snapshot.network_interfaces),
            key_layout.PORT_LISTS: len(snapshot.port_lists),
            key_layout.PREFIX_LISTS: len(snapshot.prefix_lists),
        },
        # After an unfinished publication, None makes every host resync.
        changed=tuple(layout.relative(write.key) for write in writes) if is_small and is_whole else None,
    )
    complete = published.revision if is_whole else (before.complete_revision if before else 0)
    begun = replace(marker, state=Completeness.PUBLISHING, complete_revision=complete)
    revision = published.marker_revision
    return Publication(
        writes=writes, marker=marker, begun=None if is_small else begun, marker_revision=revision
    )


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
        writer.write(publication.writes, publication.marker)
    else:
        writer.write((), publication.begun)
        for batch in batches(publication.writes):
            writer.write(batch)
        writer.write((), publication.marker)
    return writer.marker_revision


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


@dataclass(slots=True)
class _Writer:
    """Writer with optimistic locking on the marker, and retries after lost connections."""

    client: Client
    layout: KeyLayout
    marker_revision: int
    """The revision that the present marker must still have."""

    def write(self, writes: Sequence[Write], marker: Marker | None = None) -> None:
        """Commit one transaction, with retries; without a new marker, it must be idempotent.

        After a lost connection the outcome is unknown. If the transaction changes the marker, the marker then
        shows whether it was committed.
        """
        value = marker.encoded() if marker else None
        if value is not None:
            writes = [PutKey(self.layout.meta, value), *writes]
        condition = Unchanged(self.layout.meta, self.marker_revision)
        deadline = time.monotonic() + PATIENCE_SECONDS
        revision: int | None = None
        while revision is None:
            try:
                header, has_held = self.client.commit([condition], writes)
            except EtcdError as error:
                self.client.close()
                if not error.is_passing or time.monotonic() >= deadline:
                    raise
                revision = self._revision_of(value)
                continue
            # Where the condition has failed, an earlier try may have been committed.
            revision = header.revision if has_held else self._revision_of(value)
            if revision is None:
                raise PublishedMeanwhileError("another publisher has published in the meantime")
        if value is not None:
            self.marker_revision = revision

    def _revision_of(self, marker: bytes | None) -> int | None:
        """Return the revision of the marker if it has the given value."""
        key = KeyRange(self.layout.meta)
        page = self.client.persistently(lambda: self.client.read_page(key), PATIENCE_SECONDS)
        is_written = marker is not None and bool(page.items) and page.items[0].value == marker
        return page.items[0].mod_revision if is_written else None
