"""The marker of a publication: its codec, and whether the publication is complete."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from sgagent.documents.writer import as_json

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
        fields: dict[str, object] = {
            "format": FORMAT,
            "state": self.state.value,
            "serial": self.serial,
            "version": self.version,
            "published_by": self.published_by,
            "published_at": self.published_at,
            "counts": dict(self.counts),
        }
        if self.changed is not None:
            fields["changed"] = list(self.changed)
        if self.complete_revision:
            fields["complete_revision"] = self.complete_revision
        return as_json(fields)


def read_marker(value: bytes) -> Marker:
    """Decode the value of the marker's key.

    Raises:
        MalformedMarkerError: the marker is malformed, or of another version.
    """
    try:
        fields = json.loads(value)
        if fields["format"] != FORMAT:
            raise MalformedMarkerError(f"unknown format {fields['format']!r} of the marker")
        changed = fields.get("changed")
        return Marker(
            state=Completeness(fields["state"]),
            serial=int(fields["serial"]),
            version=str(fields["version"]),
            published_by=str(fields["published_by"]),
            published_at=str(fields["published_at"]),
            counts={str(kind): int(count) for kind, count in fields["counts"].items()},
            changed=None if changed is None else tuple(map(str, changed)),
            complete_revision=int(fields.get("complete_revision", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedMarkerError(f"not a marker of a publication: {error}") from error
