"""Write and read the marker that says what is published, and whether all of it is there."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from sgagent.documents.writer import as_json

FORMAT = 1


class MalformedMarkerError(Exception):
    """Say that the marker is none, or one of another version."""


class Completeness(enum.Enum):
    """Whether what is published can be taken."""

    COMPLETE = "complete"
    PUBLISHING = "publishing"
    """Somebody is writing; until that has ended, what was complete before counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """What is published."""

    state: Completeness
    serial: int
    """Grows with each publication, also over clusters that were lost and made anew."""

    version: str
    """Of the whole snapshot."""

    published_by: str
    published_at: str
    """In UTC, like ``2026-01-31T12:00:00Z``."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """Keys by their kind; all 0 is what an empty set of definitions comes to."""

    changed: tuple[str, ...] | None = None
    """The keys that were written or deleted together with the marker, relative; None if they are too many."""

    complete_revision: int = 0
    """While somebody is writing: the revision of the store at which all was complete last; 0 if never."""

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
    """Read the value of the key.

    Raises:
        MalformedMarkerError: it is no marker, or one of another version.
    """
    try:
        fields = json.loads(value)
        if fields["format"] != FORMAT:
            raise MalformedMarkerError(f"format {fields['format']!r} of the marker is not known here")
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
