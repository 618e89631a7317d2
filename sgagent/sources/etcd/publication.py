"""The marker of a publication: its codec, and whether the publication is complete."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from sgagent.documents.writer import as_json
from sgagent.json_model import UNREADABLE, from_json, to_json

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
