"""The marker of a publication, and its signature.

One signature covers all published keys: a manifest of :mod:`sgagent.signatures`, with relative keys as names.
A host reads only some keys. It compares these with the manifest and detects missing ones. So an attacker with
write access to the store can withhold a publication, but not change one.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sgagent.core.errors import Origin, Problem, Severity
from sgagent.documents.writer import as_json
from sgagent.json_model import UNREADABLE, from_json, to_json
from sgagent.signatures import Manifest, SignatureFile, check_part
from sgagent.sources.etcd.documents import Composed, Interest
from sgagent.sources.etcd.keys import MEMBERS, PUBLISHED, SIGNATURE, KeyLayout, Values
from sgagent.sources.etcd.messages import KeyRange, KeyValue
from sgagent.sources.verified_parse import SignaturePolicy, VerifiedManifest

FORMAT = 1


class MalformedMarkerError(Exception):
    """A marker that is malformed, or of another version."""


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


def read_marker(value: bytes) -> Marker:
    """Decode the value of the marker's key.

    Raises:
        MalformedMarkerError: the marker is malformed, or of another version.
    """
    try:
        return from_json(Marker, json.loads(value), FORMAT)
    except UNREADABLE as error:
        raise MalformedMarkerError(f"not a marker of a publication: {error}") from error


PART_BYTES = 512 << 10
"""Size of one part of a signature: etcd limits values, and transactions, to 1.5 MiB."""

Sign = Callable[[Mapping[str, bytes], int], SignatureFile]
"""Signs contents by name, with a serial."""


def signature_keys(
    contents: Mapping[str, bytes], layout: KeyLayout, serial: int, sign: Sign
) -> dict[str, bytes]:
    """Return the keys and values of the signature of published keys."""
    named = {layout.relative(key): value for key, value in contents.items()}
    text = sign(named, serial).render().encode()
    parts = (text[at : at + PART_BYTES] for at in range(0, len(text), PART_BYTES))
    return {layout.key(SIGNATURE, f"{number:04}"): part for number, part in enumerate(parts)}


def signature_in(items: Iterable[KeyValue], layout: KeyLayout) -> bytes | None:
    """Return the signature in a set of keys; None if there is none."""
    parts = {item.key: item.value for item in items if layout.parts(item.key)[0] == SIGNATURE}
    return b"".join(parts[key] for key in sorted(parts)) if parts else None


@dataclass(frozen=True, slots=True)
class SignedInterest:
    """An interest with the keys of the signature added."""

    inner: Interest
    layout: KeyLayout

    def wanted(self, values: Values) -> frozenset[KeyRange]:
        """Return the ranges to read, including the signature."""
        return self.inner.wanted(values) | {self.layout.all_of(SIGNATURE)}

    def documents(self, values: Values) -> Composed:
        """Return the documents; the signature is not one."""
        return self.inner.documents(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedContent:
    """The verified keys."""

    values: Values
    verified: VerifiedManifest | None = None
    """The verified manifest; None if no keys are pinned, or if an optional signature is missing."""

    problems: tuple[Problem, ...] = ()
    """Warnings."""


def hold(
    values: Values, is_read: Callable[[str], bool], layout: KeyLayout, signature_policy: SignaturePolicy
) -> SignedContent:
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
        return SignedContent(values=values)
    place = place_of(layout)
    signature = signature_in(values.values(), layout)
    if signature is None:
        return SignedContent(values=values, problems=(signature_policy.missing(place),))
    kept = {key: item for key, item in values.items() if not _is_announced(item, layout)}
    contents = {layout.relative(key): item.value for key, item in kept.items() if _is_signed(key, layout)}

    def is_asked_for(name: str) -> bool:
        return is_read(layout.root + name)

    def hold_against(manifest: Manifest) -> None:
        check_part(manifest, contents, is_asked_for)

    verified = signature_policy.verify(
        signature, place, hold_against, lambda name: f"etcd:{layout.root}{name}"
    )
    left_out = len(values) - len(kept)
    problems = (_left_out(left_out, layout),) if left_out else ()
    return SignedContent(values=kept, verified=verified, problems=problems)


def place_of(layout: KeyLayout) -> str:
    """Return the place of the signature, for messages."""
    return f"etcd:{layout.key(SIGNATURE)}"


def _is_signed(key: str, layout: KeyLayout) -> bool:
    """Return whether the manifest must include a key."""
    kind = layout.parts(key)[0]
    return kind in PUBLISHED and kind != SIGNATURE


def _is_announced(item: KeyValue, layout: KeyLayout) -> bool:
    """Return whether a host announced a member itself, without a signature."""
    return item.lease != 0 and layout.parts(item.key)[0] == MEMBERS


def _left_out(number: int, layout: KeyLayout) -> Problem:
    return Problem(
        severity=Severity.WARNING,
        code="member_unsigned",
        origin=Origin(file=f"etcd:{layout.key(MEMBERS)}"),
        message=f"unsigned members that hosts announced are left out: {number}",
        remedy="publish and sign the members; or pin no key, and trust everybody with write access",
    )
